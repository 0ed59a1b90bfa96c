"""Machines in diffusers."""

import json
import math
import subprocess
import sys
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

import patchmosaic as pm
from patchmosaic.data import DataSettings
from patchmosaic.hub import ScoreMachineModel, ScoreMachinePipeline, authors_scheduler
from patchmosaic.hub.schedulers import level

pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # in diffusers
STEPS = (20, 150)
SOLVERS = (
    "DDIM",
    "DDPM",
    "Euler",
    "Euler, Karras",
    "Heun",
    "DPM-Solver++",
    "DPM-Solver++, flow",
    "KDPM2",
    "KDPM2 ancestral",
    "UniPC",
    "EDM Euler",
    "EDM DPM-Solver++",
)


@pytest.fixture(scope="module")
def machine(digits):
    """Dense, whose rounding hardly depends on the processor."""
    return pm.presets.boundary_broken(digits.images[:300], 5, labels=digits.labels[:300], engine="dense")


def ours(machine, seeds, steps, labels=None):
    noise = pm.draw_noise(pm.generators(seeds), machine.dictionary.shape)
    return pm.sample(machine, noise, steps, labels=labels).images.clamp(-1, 1)


def check_same(images, expected):
    """To 1e-5, but for a few pixels in which rounding decides between two patches."""
    difference = (images - expected).abs().double()
    assert float((difference < 1e-5).double().mean()) > 0.97
    assert float(difference.square().mean().sqrt()) < 1e-5


def quiet(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("steps", [1, 20, 150, 7])
def test_the_authors_schedule_is_exact(steps):
    table = authors_scheduler(steps).alphas_cumprod
    assert len(table) % steps == 0
    expected = [pm.CosineSchedule().alpha_bar((k + 1) / len(table)) for k in range(len(table))]
    torch.testing.assert_close(table.double(), torch.tensor(expected).double(), rtol=2e-3, atol=1e-6)
    scheduler = authors_scheduler(steps)
    scheduler.set_timesteps(steps)
    times = (scheduler.timesteps + 1) / len(table)
    assert times.tolist() == pytest.approx(list(pm.CosineSchedule().times(steps)))


@pytest.mark.parametrize("steps", STEPS)
def test_ddim_pipeline_draws_what_sample_draws(machine, steps):
    scheduler = authors_scheduler(steps)
    pipeline = quiet(diffusers.DDIMPipeline(unet=ScoreMachineModel(machine, scheduler), scheduler=scheduler))
    rngs = pm.generators([3, 4])
    drawn = pipeline(batch_size=2, generator=rngs, num_inference_steps=steps, output_type="np").images
    images = torch.from_numpy(drawn).permute(0, 3, 1, 2) * 2 - 1
    check_same(images, ours(machine, [3, 4], steps))


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("labels", [None, [1, 7]])
def test_our_pipeline_draws_what_sample_draws(machine, steps, labels):
    pipeline = quiet(ScoreMachinePipeline(machine, authors_scheduler(steps)))
    images = pipeline([3, 4], labels, steps, output_type="pt").images * 2 - 1
    expected = ours(machine, [3, 4], steps, None if labels is None else torch.tensor(labels))
    check_same(images, expected)


def solvers():
    common = {"trained_betas": authors_scheduler().config.trained_betas, "timestep_spacing": "trailing"}
    return {
        "DDIM": diffusers.DDIMScheduler(**common, clip_sample=False),
        "DDPM": diffusers.DDPMScheduler(**common, clip_sample=False),
        "Euler": diffusers.EulerDiscreteScheduler(**common),
        "Euler, Karras": diffusers.EulerDiscreteScheduler(**common, use_karras_sigmas=True),
        "Heun": diffusers.HeunDiscreteScheduler(**common),
        "DPM-Solver++": diffusers.DPMSolverMultistepScheduler(**common, final_sigmas_type="zero"),
        "DPM-Solver++, flow": diffusers.DPMSolverMultistepScheduler(**common, use_flow_sigmas=True),
        "KDPM2": diffusers.KDPM2DiscreteScheduler(**common),
        "KDPM2 ancestral": diffusers.KDPM2AncestralDiscreteScheduler(**common),
        "UniPC": diffusers.UniPCMultistepScheduler(**common),
        "UniPC, flow": diffusers.UniPCMultistepScheduler(**common, use_flow_sigmas=True),
        "EDM Euler": diffusers.EDMEulerScheduler(),
        "EDM DPM-Solver++": diffusers.EDMDPMSolverMultistepScheduler(),
    }


@pytest.mark.parametrize(
    ("name", "prediction"),
    [
        (name, prediction)
        for name in SOLVERS
        for prediction in (
            "epsilon",
            *(() if name.endswith("flow") else ("v_prediction",)),
            *(() if name.startswith("EDM") else ("sample",)),
        )
    ],
)
def test_every_scheduler_recovers_the_posterior_mean(machine, name, prediction):
    """Its own conversion of the model's output gives the machine's clean estimate, at every step."""
    made = solvers()[name]
    scheduler = type(made).from_config(made.config, prediction_type=prediction)
    scheduler.set_timesteps(6)
    model = ScoreMachineModel(machine, scheduler)
    clean = torch.linspace(-1, 1, 64).view(1, 1, 8, 8)
    for i, t in enumerate(scheduler.timesteps):
        fresh = type(made).from_config(scheduler.config)
        fresh.set_timesteps(6)
        x = clean + 0.5 * torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(i))
        given = fresh.scale_model_input(x, t)
        found = model(given, t).sample
        at = level(scheduler, float(t))
        mean = machine.denoise(given * at.scale, at.alpha_bar)
        if name.startswith("EDM"):
            sigma = scheduler.sigmas[scheduler.timesteps.tolist().index(float(t))]
            converted = fresh.precondition_outputs(x, found, sigma)
        elif prediction == "sample":
            converted = found
        else:
            signal, noise = at.alpha_bar**0.5, (1 - at.alpha_bar) ** 0.5
            noisy = given * at.scale
            epsilon = found if prediction == "epsilon" else signal * found + noise * noisy
            converted = (noisy - noise * epsilon) / signal
        torch.testing.assert_close(converted, mean, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", ["Euler", "Euler, Karras", "Heun", "KDPM2", "KDPM2 ancestral"])
def test_levels_are_those_that_inputs_are_scaled_by(name):
    """By sqrt(1 + sigma^2), at every step, of which some lie between two and some have the same number."""
    scheduler = solvers()[name]
    scheduler.set_timesteps(5)
    for t in scheduler.timesteps:
        scale = float(scheduler.scale_model_input(torch.ones(1, dtype=torch.float64), t))
        assert level(scheduler, float(t)).alpha_bar == pytest.approx(scale**2, rel=1e-5)
        scheduler.step(torch.zeros(1), t, torch.zeros(1))


@pytest.mark.parametrize("name", ["DDIM", "DPM-Solver++", "DPM-Solver++, flow", "UniPC, flow"])
def test_levels_are_those_of_noise_that_schedulers_add(name):
    scheduler = solvers()[name]
    scheduler.set_timesteps(5)
    clean, noise = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    for t in scheduler.timesteps:
        at = level(scheduler, float(t))
        signal, size = scheduler.add_noise(clean, noise, t[None]) * at.scale
        assert signal**2 == pytest.approx(at.alpha_bar, rel=1e-5)
        assert size**2 == pytest.approx(1 - at.alpha_bar, rel=1e-5)


def test_edm_levels_are_those_of_their_noise(machine):
    scheduler = diffusers.EDMEulerScheduler()
    scheduler.set_timesteps(5)
    for i, t in enumerate(scheduler.timesteps):
        sigma, at = float(scheduler.sigmas[i]), level(scheduler, float(t))
        assert at.alpha_bar == pytest.approx(1 / (1 + sigma**2))
        scaled = scheduler.precondition_inputs(torch.ones(1), sigma)
        assert float(scaled * at.scale) == pytest.approx(1 / (1 + sigma**2) ** 0.5)
    with pytest.raises(pm.InputError, match="set_timesteps"):
        level(diffusers.EDMEulerScheduler(), 0.123)


def on_the_way(machine, name, steps):
    """The noisy picture at t = 0.5 as sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eta."""
    last, kept = steps // 2 * (2 if name == "Heun" else 1) - 1, {}

    def keep(pipe, i, t, state):
        if i == last:
            kept.update(state)
        return state

    pipeline = quiet(ScoreMachinePipeline(machine, solvers()[name]))
    pipeline([0, 1], None, steps, output_type="pt", callback_on_step_end=keep)
    divided = name in ("Heun", "Euler")
    return kept["latents"] * (pm.CosineSchedule().alpha_bar(0.5) ** 0.5 if divided else 1)


@pytest.fixture(scope="module")
def converged(digits):
    """A machine, and where it is at t = 0.5."""
    machine = pm.presets.boundary_broken(digits.images[:50], 3)
    return machine, on_the_way(machine, "Heun", 200)


@pytest.mark.parametrize(("name", "order"), [("DDIM", 1), ("Euler", 1), ("Heun", 2), ("DPM-Solver++", 2)])
def test_solvers_converge_at_their_order(converged, name, order):
    machine, reference = converged
    errors = [
        float((on_the_way(machine, name, steps) - reference).square().mean().sqrt()) for steps in (20, 40)
    ]
    assert errors[1] < 0.02
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.6)


def test_euler_is_ddim(machine):
    """In x / sqrt(alpha_bar), DDIM is Euler's method."""
    drawn = [
        quiet(ScoreMachinePipeline(machine, solvers()[name]))([5], None, 20, output_type="pt").images
        for name in ("DDIM", "Euler")
    ]
    assert float((drawn[0] - drawn[1]).abs().mean()) < 1e-3


def test_pipeline_conventions(machine):
    pipeline = quiet(ScoreMachinePipeline(machine))
    pictures = pipeline([1, 2], 3, 2).images
    assert [picture.size for picture in pictures] == [(8, 8), (8, 8)]
    array = pipeline([1, 2], 3, 2, output_type="np").images
    assert array.shape == (2, 8, 8, 1)
    assert 0 <= array.min() <= array.max() <= 1
    (alone,) = pipeline(2, 3, 2, output_type="pt", return_dict=False)
    assert torch.equal(alone[0], pipeline([1, 2], [5, 3], 2, output_type="pt").images[1])
    seen = []

    def callback(pipe, i, t, kept):
        seen.append((i, int(t)))
        return {"latents": torch.zeros_like(kept["latents"])} if i == 1 else kept

    black = pipeline(2, 3, 2, output_type="pt", callback_on_step_end=callback).images
    assert seen == [(0, 999), (1, 499)]
    assert (black == 0.5).all()


def test_model_conventions(machine):
    model = ScoreMachineModel(machine)
    assert (model.config.sample_size, model.config.in_channels) == (8, 1)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    output = model(x, torch.tensor([100, 900]), torch.tensor([1, 2]))
    assert torch.equal(
        output.sample, model(x, torch.tensor([100, 900]), torch.tensor([1, 2]), return_dict=False)[0]
    )
    alone = model(x[1:], torch.tensor(900), torch.tensor([2])).sample
    assert torch.equal(output.sample[1:], alone)
    alpha_bar = float(authors_scheduler().alphas_cumprod[900])
    expected = machine.epsilon(x[1:], alpha_bar, torch.tensor([2]))
    torch.testing.assert_close(alone, expected, rtol=1e-5, atol=1e-5)
    assert model(x.half(), 500).sample.dtype == torch.float16
    assert model(x.double(), 500).sample.dtype == torch.float64
    assert model.to(torch.float64).dtype == torch.float64
    with pytest.raises(pm.InputError, match="one per picture"):
        model(x, torch.tensor([1, 2, 3]))


def settings(**changes):
    return DataSettings(**{"data": "digits", "limit": 60, **changes})


@pytest.mark.parametrize("include", [False, True])
def test_saved_and_loaded_in_another_process(tmp_path, include):
    source = settings()
    data = source.load()
    scales = pm.presets.rule_of_thumb(8)
    machine = pm.presets.boundary_broken(data.pixels, scales, labels=data.labels, group="flip")
    model = ScoreMachineModel(machine, source=None if include else source)
    pipeline = quiet(ScoreMachinePipeline(model, authors_scheduler(4)))
    pipeline.save_pretrained(tmp_path / "saved", include_data=include)
    drawn = pipeline([0, 1], [2, 3], 4, output_type="pt").images
    code = (
        "import sys, torch; from patchmosaic.hub import ScoreMachinePipeline as P\n"
        "p = P.from_pretrained(sys.argv[1]); p.set_progress_bar_config(disable=True)\n"
        "torch.save(p([0, 1], [2, 3], 4, output_type='pt').images, sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "saved", tmp_path / "drawn.pt"], check=True)
    assert torch.equal(torch.load(tmp_path / "drawn.pt"), drawn)
    stored = tmp_path / "saved" / "unet" / "images.safetensors"
    assert stored.exists() == include
    if include:
        assert stored.stat().st_size < data.pixels.numel() + 60 * 8 + 1000


def test_labels_of_the_source_that_the_machine_has_not_are_left_out(tmp_path):
    source = settings()
    machine = pm.presets.ideal(source.load().pixels)
    ScoreMachineModel(machine, source=source).save_pretrained(tmp_path)
    assert ScoreMachineModel.from_pretrained(tmp_path).machine.dictionary.labels is None


@pytest.mark.parametrize("name", sorted(name for name in dir(diffusers) if name.startswith("FlowMatch")))
def test_schedulers_of_flows_are_refused(machine, name):
    scheduler = getattr(diffusers, name)()
    with pytest.raises(pm.InputError, match="predict flows"):
        quiet(ScoreMachinePipeline(machine, scheduler))([0], None, 2)
    with pytest.raises(pm.InputError, match="predict flows"):
        ScoreMachineModel(machine, scheduler)(torch.zeros(1, *machine.dictionary.shape), 1.0)


def test_numpy_numbers_and_empty_batches(machine):
    pipeline = quiet(ScoreMachinePipeline(machine))
    one = pipeline(np.int64(1), np.int64(3), 2, output_type="pt").images
    assert torch.equal(one, pipeline(1, 3, 2, output_type="pt").images)
    empty = torch.zeros(0, *machine.dictionary.shape)
    assert pipeline.unet(empty, 20).sample.shape == empty.shape


def test_a_pipeline_is_loaded_with_another_scheduler_and_dtype(tmp_path):
    ScoreMachinePipeline(ScoreMachineModel(pm.presets.ideal(torch.zeros(2, 1, 3, 3)))).save_pretrained(
        tmp_path, include_data=True
    )
    scheduler = diffusers.EulerDiscreteScheduler()
    loaded = ScoreMachinePipeline.from_pretrained(tmp_path, scheduler=scheduler, torch_dtype=torch.float64)
    assert loaded.scheduler is scheduler
    assert loaded.unet.dtype == torch.float64
    assert ScoreMachinePipeline.from_pretrained(tmp_path).unet.dtype == torch.float32


def test_which_class_loads_what(tmp_path):
    """As the page on diffusers says."""
    model = ScoreMachineModel(pm.presets.ideal(settings().load().pixels), source=settings())
    ScoreMachinePipeline(model).save_pretrained(tmp_path / "ours")
    diffusers.DDIMPipeline(model, authors_scheduler()).save_pretrained(tmp_path / "theirs")
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for folder in (tmp_path / "ours", tmp_path / "theirs"):
        found = [kind.from_pretrained(folder).unet for kind in (ScoreMachinePipeline, diffusers.DDIMPipeline)]
        for one in (*found, ScoreMachineModel.from_pretrained(folder, subfolder="unet")):
            assert torch.equal(one(x, 500).sample, model(x, 500).sample)
    assert isinstance(
        diffusers.DiffusionPipeline.from_pretrained(tmp_path / "theirs"), diffusers.DDIMPipeline
    )
    with pytest.raises(AttributeError, match="no attribute ScoreMachinePipeline"):
        diffusers.DiffusionPipeline.from_pretrained(tmp_path / "ours")


def test_other_images_are_refused(tmp_path):
    source = settings()
    data = source.load()
    model = ScoreMachineModel(pm.presets.ideal(data.pixels, labels=data.labels), source=source)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, told in (
        ({"limit": 61}, "61x1x8x8"),
        ({"subset_seed": 1}, "the pixels and labels of the images in digits are not those"),
    ):
        changed = json.loads(json.dumps(config))
        changed["machine"]["source"].update(change)
        (tmp_path / "config.json").write_text(json.dumps(changed))
        with pytest.raises(pm.InputError, match=told):
            ScoreMachineModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("change", [{"limit": 59}, {"subset_seed": 1}, {"size": 9}])
def test_a_source_of_other_images_is_refused_when_saving(tmp_path, change):
    machine = pm.presets.ideal(settings().load().pixels)
    model = ScoreMachineModel(machine, source=settings(**change))
    with pytest.raises(pm.InputError, match="the machine was made of"):
        ScoreMachinePipeline(model).save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
    model.save_pretrained(tmp_path, include_data=True)
    assert ScoreMachineModel.from_pretrained(tmp_path).machine.dictionary.shape == (1, 8, 8)


def test_images_saved_before_do_not_stay(tmp_path):
    ScoreMachineModel(pm.presets.ideal(torch.zeros(2, 1, 3, 3))).save_pretrained(tmp_path, include_data=True)
    model = ScoreMachineModel(pm.presets.ideal(settings().load().pixels), source=settings())
    model.save_pretrained(tmp_path)
    assert len(ScoreMachineModel.from_pretrained(tmp_path).machine.dictionary) == 60


def test_tampered_images_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    ScoreMachineModel(pm.presets.ideal(torch.zeros(2, 1, 3, 3))).save_pretrained(tmp_path, include_data=True)
    tensors = load_file(tmp_path / "images.safetensors")
    tensors["levels"] = tensors["levels"] + 0.5
    save_file(tensors, tmp_path / "images.safetensors")
    with pytest.raises(pm.InputError, match="the pixels of the images in"):
        ScoreMachineModel.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        (lambda p: p([0], None, 7), "authors_scheduler"),
        (lambda p: p([0], None, 0), "at least 1"),
        (lambda p: p([0, 1], [3], 2), "one per seed"),
        (lambda p: p([-1], None, 2), "4,294,967,295"),
        (lambda p: p([0], None, 2, output_type="png"), "output_type"),
        (lambda p: p([0], 77, 2), "no training image has label 77"),
        (lambda p: p([0], "3", 2), "a class label must be"),
        (lambda p: p.save_pretrained("nowhere"), "include_data=True"),
        (lambda p: p.save_pretrained("nowhere", True, push_to_hub=True), "pushed to the Hub"),
        (lambda p: p.unet.save_pretrained("nowhere", True, push_to_hub=True), "pushed to the Hub"),
        (lambda p: ScoreMachineModel.from_pretrained("nowhere"), "cannot be read"),
        (lambda p: ScoreMachinePipeline.from_pretrained("nowhere"), "cannot be read"),
        (lambda p: authors_scheduler(0), "at least 1"),
        (
            lambda p: ScoreMachinePipeline(
                p.unet.machine,
                diffusers.UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="v_prediction"),
            )([0], None, 2),
            "not with v_prediction",
        ),
    ],
)
def test_mistakes_are_told(machine, mistake, told):
    with pytest.raises(pm.InputError, match=told):
        mistake(quiet(ScoreMachinePipeline(machine)))


def test_without_the_libraries_it_says_which_to_install(tmp_path):
    blocker = (
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('diffusers', 'datasets', 'accelerate', 'transformers'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
    )

    def run(code):
        return subprocess.run([sys.executable, "-c", blocker + code], capture_output=True, text=True)

    drawn = run(
        "from patchmosaic.cli import main\n"
        f"sys.exit(main(['generate', '--limit', '20', '--count', '1', '--steps', '2', '--out', {str(tmp_path)!r}]))"
    )
    assert drawn.returncode == 0, drawn.stderr
    compared = run("from patchmosaic.cli import main; sys.exit(main(['compare', '--count', '1']))")
    assert compared.returncode == 1
    assert compared.stderr.strip() == (
        "patchmosaic: this needs diffusers, which is not installed: pip install 'patchmosaic[networks]'"
    )
    hub = run("import patchmosaic.hub")
    assert hub.stderr.strip().endswith("patchmosaic.hub needs diffusers: pip install 'patchmosaic[networks]'")
    network = run("import patchmosaic as pm; pm.load_network()")
    assert network.stderr.strip().endswith("a network needs diffusers: pip install 'patchmosaic[networks]'")
    remote = run("import patchmosaic as pm; pm.load_dataset('hub:mnist')")
    assert "pip install 'patchmosaic[hub]'" in remote.stderr


def test_the_page_runs(tmp_path, monkeypatch):
    """Every snippet of docs/diffusers.md, one after the other."""
    page = Path(__file__).parents[1] / "docs" / "diffusers.md"
    monkeypatch.chdir(tmp_path)
    known: dict = {}
    snippets = [part.split("```")[0] for part in page.read_text().split("```python\n")[1:]]
    assert len(snippets) >= 5
    for snippet in snippets:
        exec(compile(snippet, str(page), "exec"), known)
