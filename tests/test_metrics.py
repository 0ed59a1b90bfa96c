"""Measures of likeness: closed forms, what they ignore, and what they say of constant images."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

import patchmosaic as pm
from patchmosaic.metrics import METRICS, measure, pearson, summary


def images(*rows):
    """One image per row, its pixels along the width."""
    return torch.tensor(rows, dtype=torch.float64).view(len(rows), 1, 1, -1)


def random_batch(seed, shape=(4, 3, 5, 6)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


batches = st.integers(0, 10_000).map(random_batch)
quick = settings(max_examples=40, deadline=None)


def test_closed_forms():
    found = measure(images([0, 1, 2, 3]), images([0, 2, 1, 5]))
    # centred: (-1.5, -.5, .5, 1.5) and (-2, 0, -1, 3), so 7 / sqrt(5 * 14)
    assert float(found["r"]) == pytest.approx(7 / 70**0.5)
    assert float(found["r2"]) == pytest.approx(49 / 70)
    assert float(found["R2"]) == pytest.approx(1 - 6 / 5)
    assert float(found["cosine"]) == pytest.approx(19 / (14 * 30) ** 0.5)
    assert float(found["mse"]) == pytest.approx(6 / 4)


def test_the_reference_comes_first():
    a, b = images([0, 1, 2, 3]), images([0, 2, 1, 5])
    assert float(METRICS["R2"](a, b)) == pytest.approx(1 - 6 / 5)
    assert float(METRICS["R2"](b, a)) == pytest.approx(1 - 6 / 14)


def test_numpy_agrees_and_images_stand_alone():
    a, b = random_batch(1), random_batch(2)
    expected = [np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a.numpy(), b.numpy(), strict=True)]
    np.testing.assert_allclose(pearson(a, b).numpy(), expected, rtol=1e-12)
    for name, metric in METRICS.items():
        alone = torch.cat([metric(a[i : i + 1], b[i : i + 1]) for i in range(len(a))])
        torch.testing.assert_close(metric(a, b), alone, rtol=1e-12, atol=1e-12, msg=name)


@quick
@given(batches, batches, st.floats(0.01, 100), st.floats(-5, 5))
def test_r_ignores_brightness_and_contrast(a, b, contrast, brightness):
    changed = contrast * b + brightness
    torch.testing.assert_close(pearson(a, changed), pearson(a, b), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(pearson(a, -changed), -pearson(a, b), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(pearson(b, a), pearson(a, b))


@quick
@given(batches, batches, st.floats(0.01, 100))
def test_bounds(a, b, scale):
    found = measure(a, scale * b)
    assert bool((found["r"].abs() <= 1).all())
    assert bool((found["cosine"].abs() <= 1).all())
    assert bool((found["mse"] >= 0).all())
    torch.testing.assert_close(found["r2"], found["r"] ** 2)
    # r2 is what the best brightness and contrast would reach
    assert bool((found["R2"] <= found["r2"] + 1e-12).all())
    assert bool((found["R2"] <= 1).all())


@quick
@given(batches, batches)
def test_the_best_brightness_and_contrast_reach_r2(a, b):
    x, y = a.flatten(1), b.flatten(1)
    slope = ((x - x.mean(1, True)) * (y - y.mean(1, True))).sum(1) / (y - y.mean(1, True)).square().sum(1)
    fitted = slope[:, None] * (y - y.mean(1, True)) + x.mean(1, True)
    found = METRICS["R2"](a, fitted.view_as(a))
    torch.testing.assert_close(found, METRICS["r2"](a, b), rtol=1e-9, atol=1e-9)


def test_equal_images():
    a = random_batch(3).float()
    found = measure(a, a.clone())
    for name in ("r", "r2", "R2", "cosine"):
        torch.testing.assert_close(found[name], torch.ones(4, dtype=torch.float64), msg=name)
    assert bool((found["R2"] == 1).all())
    assert bool((found["mse"] == 0).all())


@pytest.mark.parametrize(
    ("reference", "other", "expected"),
    [
        ([0.1] * 7, [0.1] * 7, {"r": 1, "r2": 1, "R2": 1, "cosine": 1, "mse": 0}),
        ([0.1] * 7, [0.3] * 7, {"r": 0, "r2": 0, "R2": 0, "cosine": 1, "mse": 0.04}),
        ([0.1] * 3, [0.1, 0.1, 0.2], {"r": 0, "r2": 0, "R2": 0, "mse": 0.01 / 3}),
        ([1, 2, 3], [2, 2, 2], {"r": 0, "r2": 0, "R2": 0, "mse": 2 / 3}),
        ([0, 0], [0, 0], {"r": 1, "r2": 1, "R2": 1, "cosine": 1, "mse": 0}),
        ([0, 0], [1, 2], {"r": 0, "r2": 0, "R2": 0, "cosine": 0, "mse": 2.5}),
    ],
)
def test_constant_images_are_never_nan(reference, other, expected):
    found = measure(images(reference), images(other))
    assert {name: float(found[name]) for name in expected} == pytest.approx(expected, abs=1e-12)


def test_results_are_float64_one_per_image():
    for value in measure(random_batch(1).float(), random_batch(2).float()).values():
        assert value.dtype == torch.float64
        assert value.shape == (4,)


def test_summary_is_numpys():
    values = torch.linspace(0, 1, 10, dtype=torch.float64) ** 2
    found = summary(values)
    assert found["median"] == pytest.approx(np.median(values.numpy()))
    assert found["mean"] == pytest.approx(np.mean(values.numpy()))
    assert list(found["quantiles"]) == ["0.05", "0.25", "0.75", "0.95"]
    for level, value in found["quantiles"].items():
        assert value == pytest.approx(np.quantile(values.numpy(), float(level)))


@pytest.mark.parametrize("shape", [(2, 1, 3, 3), (3, 1, 3, 4), (0, 1, 3, 3), (9,)])
def test_other_shapes_are_told(shape):
    with pytest.raises(pm.InputError, match=r"equal batches \(B, C, H, W\)"):
        measure(torch.zeros(shape), torch.zeros(3, 1, 3, 3))


def test_nan_is_told():
    bad = torch.zeros(1, 1, 2, 2)
    bad[0, 0, 0, 0] = torch.nan
    with pytest.raises(pm.InputError, match="NaN"):
        measure(torch.zeros(1, 1, 2, 2), bad)
