"""Networks: what they see, what they are equivariant to, and folders that hold them."""

import json

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMScheduler, UNet2DModel
from torch import nn

import patchmosaic as pm
from patchmosaic.nets import Network, load_network, save_network
from patchmosaic.nets.resnet import ResNet
from patchmosaic.nets.unet import UNet

ATTENTION = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "layers_per_block": 1,
}


def awake(model, seed=0):
    """The model with random weights where it starts from zero."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in model.parameters():
            weights += 0.1 * torch.randn(weights.shape, generator=rng)
    return model.eval()


def small_unet(**options):
    return UNet(8, 1, (4, 8, 8), 1, **options)


@pytest.mark.parametrize("layers", [1, 3])
def test_a_pixel_of_the_resnet_sees_its_receptive_field_and_no_more(layers):
    model = awake(ResNet(15, 2, 6, layers))
    x = torch.randn(1, 2, 15, 15, generator=torch.Generator().manual_seed(0), requires_grad=True)
    model(x, 300.0).sample[0, :, 7, 7].sum().backward()
    seen = x.grad[0].abs().amax(0) > 0
    reach = model.receptive_field // 2
    expected = torch.zeros(15, 15, dtype=torch.bool)
    expected[7 - reach : 8 + reach, 7 - reach : 8 + reach] = True
    assert torch.equal(seen, expected)


@pytest.mark.parametrize(
    ("model", "shift"), [(lambda p: ResNet(8, 1, 6, 2, p), 3), (lambda p: small_unet(padding=p), 4)]
)
def test_circular_networks_are_equivariant_and_zero_padded_ones_are_not(model, shift):
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    moved = x.roll((shift, -shift), (2, 3))
    for padding, equivariant in (("circular", True), ("zeros", False)):
        net = awake(model(padding))
        error = (net(moved, 300.0).sample - net(x, 300.0).sample.roll((shift, -shift), (2, 3))).abs().max()
        assert (error < 1e-5) == equivariant


@pytest.mark.parametrize(
    "make", [lambda: ResNet(8, 1, 6, 2, num_class_embeds=3), lambda: small_unet(num_class_embeds=3)]
)
def test_time_and_class_matter_to_each_image_by_itself(make):
    net = awake(make())
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    together = net(x, torch.tensor([5.0, 5.5, 900.0]), torch.tensor([0, 1, 2])).sample
    for i, (step, label) in enumerate([(5.0, 0), (5.5, 1), (900.0, 2)]):
        alone = net(x[i : i + 1], step, torch.tensor([label])).sample
        assert torch.allclose(together[i : i + 1], alone, atol=1e-6)
    assert not torch.allclose(net(x, 5.0, torch.tensor([0, 1, 2])).sample, together, atol=1e-3)
    assert not torch.allclose(net(x, 5.0, torch.tensor([1, 1, 2])).sample[0], together[0], atol=1e-3)


class Spy(nn.Module):
    """A model that keeps what it was called with, and finds no noise."""

    def __init__(self, classes=None):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.config = {"sample_size": 4, "in_channels": 1, "num_class_embeds": classes}

    def forward(self, x, timestep, class_labels=None):
        self.timestep, self.labels = timestep, class_labels
        return type("Output", (), {"sample": torch.zeros_like(x)})


def test_time_steps_follow_the_schedule_exactly():
    spy = Spy()
    network = Network(spy)
    x = torch.zeros(3, 1, 4, 4)
    t = torch.tensor([0.001, 0.5005, 1.0], dtype=torch.float64)
    network.denoise(x, pm.CosineSchedule().alpha_bar(t))
    assert torch.allclose(spy.timestep.double(), 1000 * t - 1, atol=1e-3)


def test_saved_networks_are_read_back_with_the_papers_schedule(tmp_path):
    for i, model in enumerate(
        (ResNet(8, 1, 8, 2, num_class_embeds=4), small_unet(), UNet2DModel(**ATTENTION))
    ):
        save_network(awake(model), tmp_path / str(i))
        network = load_network(tmp_path / str(i))
        assert not list((tmp_path / str(i)).glob("*.bin"))
        x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        labels = None if network.classes is None else torch.tensor([0, 3])
        for t in (0.001, 0.3337, 1.0):
            alpha_bar = pm.CosineSchedule().alpha_bar(t)
            expected = Network(model).denoise(x, alpha_bar, labels)
            assert torch.allclose(network.denoise(x, alpha_bar, labels), expected, atol=2e-4, rtol=2e-4)
        assert network.fingerprint == Network(model).fingerprint
    scheduler = DDIMScheduler.from_pretrained(tmp_path / "0")
    times = torch.arange(1, 1001, dtype=torch.float64) / 1000
    assert torch.allclose(scheduler.alphas_cumprod.double(), pm.CosineSchedule().alpha_bar(times), rtol=2e-3)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_a_diffusers_pipeline_brings_its_schedule_and_prediction(tmp_path, kind):
    unet = UNet2DModel(**ATTENTION).eval()
    scheduler = DDPMScheduler(num_train_timesteps=200, prediction_type=kind)
    DDIMPipeline(unet, scheduler).save_pretrained(tmp_path)
    network = load_network(tmp_path)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    alpha_bar = float(scheduler.alphas_cumprod[120])
    output = unet(x, 120).sample
    signal, noise = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    expected = {
        "epsilon": (x - noise * output) / signal,
        "sample": output,
        "v_prediction": signal * x - noise * output,
    }
    assert torch.allclose(network.denoise(x, alpha_bar), expected[kind], atol=1e-4)


def test_the_graph_reaches_the_input():
    network = Network(awake(ResNet(8, 1, 4, 1)))
    x = torch.zeros(1, 1, 8, 8, requires_grad=True)
    network.output(x, 0.5).sum().backward()
    assert x.grad.abs().sum() > 0


X = torch.zeros(2, 1, 4, 4)
REFUSED = {
    "labels without classes": (None, X, torch.tensor([0, 1]), "leave out the labels"),
    "classes without labels": (3, X, None, "give labels"),
    "unknown label": (3, X, torch.tensor([0, 3]), "0 to 2"),
    "channels": (None, torch.zeros(2, 3, 4, 4), None, "1 channels"),
}


def test_a_name_is_no_schedule():
    with pytest.raises(pm.InputError, match="must be a noise schedule"):
        Network(Spy(None), "cosine")


@pytest.mark.parametrize("mistake", REFUSED)
def test_what_a_network_refuses(mistake):
    classes, x, labels, hint = REFUSED[mistake]
    with pytest.raises(pm.InputError, match=hint):
        Network(Spy(classes)).denoise(x, 0.5, labels)


def test_a_network_of_nan_is_refused():
    model = ResNet(4, 1, 4, 1)
    with torch.no_grad():
        model.up.weight.fill_(float("nan"))
    with pytest.raises(pm.InputError, match="NaN"):
        Network(model).denoise(X, 0.5)


@pytest.mark.parametrize(
    "content", ["{}", "[]", "no json", '{"config": {"lr": 1}}', '{"config": {"data": "cats"}, "data": 3}']
)
def test_a_run_json_of_another_program_says_nothing(tmp_path, digits, content):
    save_network(ResNet(8, 1, 8, 2), tmp_path)
    (tmp_path / "run.json").write_text(content)
    network = load_network(tmp_path)
    assert network.data() is None
    assert not network.trained_on(digits)


def test_the_bundled_network_knows_its_images(digits):
    assert load_network().trained_on(digits)
    assert not load_network().trained_on(pm.load_dataset("digits", limit=9))


@pytest.mark.parametrize("size", [None, "8", 8.0, [8], [8, None]])
def test_a_network_that_does_not_say_its_size_takes_one_clear_line(tmp_path, size):
    save_network(UNet2DModel(**{**ATTENTION, "sample_size": size}), tmp_path)
    with pytest.raises(pm.InputError, match=r"set sample_size in .*config\.json"):
        load_network(tmp_path)


def damage(folder, how):
    weights = folder / "diffusion_pytorch_model.safetensors"
    config = folder / "config.json"
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "no weights":
        weights.unlink()
    elif how == "another shape":
        config.write_text(json.dumps({**json.loads(config.read_text()), "width": 16}))
    elif how == "another kind":
        config.write_text(json.dumps({**json.loads(config.read_text()), "_class_name": "VQModel"}))
    elif how == "no kind":
        config.write_text("{}")
    elif how == "no json":
        config.write_text("{")
    elif how == "no schedule":
        (folder / "scheduler_config.json").write_text("[]")
    else:
        config.unlink()


@pytest.mark.parametrize(
    "how",
    [
        "truncated",
        "no weights",
        "another shape",
        "another kind",
        "no kind",
        "no json",
        "no schedule",
        "no config",
    ],
)
def test_damaged_folders_take_one_clear_line(tmp_path, how):
    save_network(ResNet(8, 1, 8, 2), tmp_path / "net")
    damage(tmp_path / "net", how)
    with pytest.raises(pm.InputError) as raised:
        load_network(tmp_path / "net")
    assert len(str(raised.value).splitlines()) == 1
    assert str(tmp_path / "net") in str(raised.value)
    assert "None" not in str(raised.value)
