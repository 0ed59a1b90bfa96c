"""Receptive fields: derivatives against finite differences, and widths against closed forms."""

import pytest
import torch

import patchmosaic as pm
from battery import MACHINES, training_images
from patchmosaic.explain import effective_width, machine_jacobian, network_jacobian, receptive_field
from patchmosaic.explain.receptive import rank_correlation
from patchmosaic.nets import Network
from patchmosaic.nets.resnet import ResNet


def finite_differences(denoise, x, step=1e-5):
    """(B, C, C, H, W), of the centre pixel, from one call for each sample with labels of its own."""
    c, h, w = x.shape[1:]
    moves = step * torch.eye(c * h * w, dtype=torch.float64).view(-1, c, h, w)
    rows = []
    for i, sample in enumerate(x):
        means = denoise(torch.cat([sample + moves, sample - moves]), i)[:, :, h // 2, w // 2]
        ahead, behind = means.chunk(2)
        rows.append(((ahead - behind) / (2 * step)).T.reshape(c, c, h, w))
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("name", "window"),
    [(name, window) for name in MACHINES for window in (1, 3, 11) if window <= 4 or "inside" not in name],
)
def test_a_machines_derivative(name, window):
    symmetry, padding, keys = MACHINES[name]
    images, labels = training_images((2, 4, 5), 12, "bytes"), torch.arange(12) % 2
    machine = pm.ScoreMachine(images, labels, window, symmetry, padding, keys=keys, group="flip")
    x = torch.randn(2, 2, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for asked in (None, [1, 0]):
        found = machine_jacobian(machine, x, 0.3, window, asked and torch.tensor(asked))
        expected = finite_differences(
            lambda moved, i, asked=asked: machine.denoise(moved, 0.3, asked and asked[i]), x
        )
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_memory_changes_no_derivative(digits):
    images = digits.images[:300]
    x = pm.draw_noise(pm.generators([0]), (1, 8, 8))
    small, large = (
        machine_jacobian(pm.presets.boundary_broken(images, 1, memory_budget=budget), x, 0.2, 5)
        for budget in (1 << 20, 1 << 30)
    )
    torch.testing.assert_close(small, large, rtol=0, atol=1e-12)


@pytest.mark.parametrize("predicts", ["epsilon", "x0", "v"])
def test_a_networks_derivative(predicts):
    torch.manual_seed(0)
    model = ResNet(sample_size=7, in_channels=2, width=8, layers=1).double()
    torch.nn.init.normal_(model.down.weight, std=0.2)
    network = Network(model, predicts=predicts)
    x = torch.randn(2, 2, 9, 8, dtype=torch.float64)
    found = network_jacobian(network, x, 0.4)
    expected = finite_differences(lambda moved, i: network.denoise(moved, 0.4), x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    outside = receptive_field(found).clone()
    outside[1:8, 1:8] = 0  # the network sees 7 x 7 around (4, 4)
    assert network.receptive_field == 7
    assert outside.abs().max() == 0


@pytest.mark.parametrize("predicts", ["epsilon", "x0", "v", "score"])
def test_a_functions_derivative(predicts):
    denoiser = pm.FunctionDenoiser(lambda x, alpha_bar, labels: (x * alpha_bar.to(x)[0]).sin(), predicts)
    x = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = finite_differences(lambda moved, i: denoiser.denoise(moved, 0.4), x)
    torch.testing.assert_close(network_jacobian(denoiser, x, 0.4), expected, rtol=1e-6, atol=1e-8)


def test_what_has_no_derivative():
    x = torch.zeros(1, 1, 3, 3)
    with pytest.raises(pm.InputError, match="machine_jacobian is for a machine"):
        network_jacobian(pm.presets.ideal(x), x, 0.4)
    for wrong in (x[0], x.int(), x.numpy()):
        with pytest.raises(pm.InputError, match="x must be a tensor of floats of shape"):
            network_jacobian(pm.FunctionDenoiser(lambda x, alpha_bar, labels: x / 2), wrong, 0.4)
    with pytest.raises(pm.InputError, match="has no gradient"):
        network_jacobian(pm.FunctionDenoiser(torch.no_grad()(lambda x, alpha_bar, labels: x / 2)), x, 0.4)


@pytest.mark.parametrize(("size", "side"), [(8, 1), (8, 5), (9, 9), (32, 17)])
def test_a_uniform_square_is_as_wide_as_it_is(size, side):
    field = torch.zeros(size, size, dtype=torch.float64)
    first = size // 2 - side // 2
    field[first : first + side, first : first + side] = 0.3
    assert effective_width(field) == pytest.approx(side)


def test_rank_correlation():
    a = torch.tensor([1.0, 2.0, 2.0, 5.0])
    assert rank_correlation(a, a.exp()) == 1
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert rank_correlation(a, torch.tensor([3.0, 1.0, 2.0, 4.0])) == pytest.approx(0.316227766)  # scipy's
