"""The machines against the brute force, and the identities that the equations imply.

Errors are relative to the largest |D| of the sample they occur in: max |D - reference| / max |reference|.
The bounds are 1e-10 in float64 and 1e-4 in float32; a float32 result is judged against the float64
reference computed from the same float32 numbers.
"""

import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import patchmosaic as pm
from brute_force import GROUPS, border_signature, posterior_mean, transformed_images

BOUND = {torch.float64: 1e-10, torch.float32: 1e-4}
ALPHA_BARS = (1e-4, 0.01, 0.3, 0.7, 0.99, 0.9999)
SHAPES = ((1, 5, 5), (3, 3, 5), (1, 6, 5))
FAST = settings(max_examples=12, deadline=None, database=None, derandomize=True)

IDEAL = {"locality": None, "symmetry": "none", "padding": "zeros"}
EQUIVARIANT = {"locality": None, "symmetry": "translation", "padding": "circular"}
LOCAL = {"locality": 3, "symmetry": "none", "padding": "zeros"}
LOCAL_WRAPPED = {"locality": 3, "symmetry": "none", "padding": "circular"}
EQUIVARIANT_LOCAL = {"locality": 3, "symmetry": "translation", "padding": "circular"}
INSIDE = {"locality": 3, "symmetry": "translation", "padding": "circular", "keys": "inside"}
BOUNDARY_BROKEN = {"locality": 3, "symmetry": "translation", "padding": "zeros"}
MACHINES = {
    "IS": IDEAL,
    "ES": EQUIVARIANT,
    "LS": LOCAL,
    "LS-circular": LOCAL_WRAPPED,
    "ELS": EQUIVARIANT_LOCAL,
    "ELS-inside": INSIDE,
    "bbELS": BOUNDARY_BROKEN,
}
every_machine = pytest.mark.parametrize("config", MACHINES.values(), ids=MACHINES.keys())
seeds = st.integers(0, 2**32 - 1)
noise_levels = st.one_of(st.sampled_from(ALPHA_BARS), st.floats(1e-6, 0.9999))


def brute(x, images, alpha_bar, config) -> torch.Tensor:
    answer = posterior_mean(
        np.asarray(x),
        np.asarray(images),
        float(alpha_bar),
        window=config["locality"],
        translation=config["symmetry"] == "translation",
        padding=config["padding"],
        keys=config.get("keys", "all"),
    )
    return torch.from_numpy(answer)


def worst_error(got, reference) -> float:
    """The largest error over the samples of a batch, each relative to that sample's largest |D|."""
    assert got.shape == reference.shape
    assert torch.isfinite(got).all()
    scale = reference.double().abs().flatten(1).amax(1).clamp_min(1e-300)
    return ((got.double() - reference.double()).abs().flatten(1).amax(1) / scale).max().item()


def assert_same(got, reference):
    error = worst_error(got, reference)
    assert error <= BOUND[got.dtype], f"relative error {error:.2e}"


def random_images(rng, count, shape) -> torch.Tensor:
    return torch.from_numpy(rng.uniform(-1, 1, (count, *shape)))


def noised(rng, images, alpha_bars) -> torch.Tensor:
    """One noised training image per noise level."""
    picks = images[torch.from_numpy(rng.integers(0, len(images), len(alpha_bars)))]
    ab = torch.as_tensor(alpha_bars, dtype=torch.float64).reshape(-1, 1, 1, 1)
    return ab.sqrt() * picks + (1 - ab).sqrt() * torch.from_numpy(rng.normal(size=picks.shape))


def levels(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


# --- against the brute force ---------------------------------------------------------------------------


@cache
def problem(shape):
    """Images, queries and noise levels, all exact in float32: each level once noised, once pure noise."""
    rng = np.random.default_rng(sum(shape))
    images = random_images(rng, 3, shape).float().double()
    alpha_bar = levels(*ALPHA_BARS, *ALPHA_BARS)
    pure = torch.from_numpy(rng.normal(size=(len(ALPHA_BARS), *shape)))
    x = torch.cat([noised(rng, images, ALPHA_BARS), pure]).float().double()
    return images, x, alpha_bar


@cache
def reference(shape, locality, symmetry, padding, keys):
    images, x, alpha_bar = problem(shape)
    config = {"locality": locality, "symmetry": symmetry, "padding": padding, "keys": keys}
    return torch.stack([brute(q, images, ab, config) for q, ab in zip(x, alpha_bar, strict=True)])


def _cases():
    for shape in SHAPES:
        for symmetry in ("none", "translation"):
            for padding in ("zeros", "circular"):
                for locality in (None, *sorted({3, 5, 7, 9, 13, 2 * max(shape) - 1})):
                    yield shape, locality, symmetry, padding, "all"
        for locality in (1, 3, 5):
            if locality <= min(shape[1:]):
                yield shape, locality, "translation", "circular", "inside"
                yield shape, 1, "translation", "zeros", "all"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("shape", "locality", "symmetry", "padding", "keys"), sorted(set(_cases()), key=str))
def test_brute_force(shape, locality, symmetry, padding, keys, dtype):
    images, x, alpha_bar = problem(shape)
    machine = pm.ScoreMachine(
        images.to(dtype), locality=locality, symmetry=symmetry, padding=padding, keys=keys
    )
    query = x.to(dtype)
    got = machine.denoise(query, alpha_bar)
    assert got.dtype == dtype
    assert torch.equal(query, x.to(dtype))
    expected = reference(shape, locality, symmetry, padding, keys)
    errors = [worst_error(g[None], e[None]) for g, e in zip(got, expected, strict=True)]
    report = ", ".join(f"{ab:g}: {e:.1e}" for ab, e in zip(alpha_bar.tolist(), errors, strict=True))
    assert max(errors) <= BOUND[dtype], report


@settings(FAST, max_examples=60)
@given(data=st.data(), seed=seeds, alpha_bar=noise_levels, pure=st.booleans())
def test_brute_force_on_any_small_problem(data, seed, alpha_bar, pure):
    rng = np.random.default_rng(seed)
    shape = tuple(data.draw(st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))))
    config = {
        "locality": data.draw(st.sampled_from([None, 1, 3, 5, 7, 11])),
        "symmetry": data.draw(st.sampled_from(["none", "translation"])),
        "padding": data.draw(st.sampled_from(["zeros", "circular"])),
    }
    images = random_images(rng, data.draw(st.integers(1, 4)), shape)
    x = torch.from_numpy(rng.normal(size=(1, *shape))) if pure else noised(rng, images, [alpha_bar])
    got = pm.ScoreMachine(images, **config).denoise(x, alpha_bar)
    assert_same(got, brute(x[0], images, alpha_bar, config)[None])


@every_machine
def test_parts_of_the_query_far_from_all_data(config):
    """Logits of very different size in one image and in one batch: each pixel needs its own maximum."""
    rng = np.random.default_rng(5)
    images = random_images(rng, 3, (1, 6, 6))
    x = noised(rng, images, [0.3, 0.3, 0.99])
    x[0, :, :2, :2] += 40.0
    x[1] *= 30.0
    alpha_bar = levels(0.3, 0.3, 0.99)
    expected = torch.stack([brute(q, images, ab, config) for q, ab in zip(x, alpha_bar, strict=True)])
    assert_same(pm.ScoreMachine(images, **config).denoise(x, alpha_bar), expected)


@pytest.mark.parametrize("config", [EQUIVARIANT_LOCAL, BOUNDARY_BROKEN], ids=["ELS", "bbELS"])
def test_more_patches_than_fit_at_once(config):
    rng = np.random.default_rng(6)
    config = config | {"locality": 5}
    images = random_images(rng, 70, (3, 5, 5))
    x = noised(rng, images, [0.02, 0.3])
    expected = torch.stack([brute(q, images, ab, config) for q, ab in zip(x, (0.02, 0.3), strict=True)])
    got = pm.ScoreMachine(images, memory_budget=1 << 20, **config).denoise(x, levels(0.02, 0.3))
    assert_same(got, expected)


# --- what the input may be -----------------------------------------------------------------------------


@every_machine
def test_input_kinds(config):
    rng = np.random.default_rng(7)
    images = random_images(rng, 3, (2, 4, 5)).float()
    x = noised(rng, images.double(), [0.3, 0.3])
    expected = torch.stack([brute(q, images, 0.3, config) for q in x])
    machine = pm.ScoreMachine(images, **config)
    assert_same(machine.denoise(x, 0.3), expected)  # float32 images, float64 query
    assert_same(pm.ScoreMachine(images.double(), **config).denoise(x.float(), 0.3), expected)
    assert torch.equal(pm.ScoreMachine(images.numpy(), **config).denoise(x, 0.3), machine.denoise(x, 0.3))
    assert torch.equal(machine.denoise(x, levels(0.3, 0.3)), machine.denoise(x, 0.3))


def test_float32_noise_levels_are_taken_at_their_exact_value():
    rng = np.random.default_rng(8)
    images = random_images(rng, 4, (1, 5, 5))
    alpha_bar = torch.tensor([0.3, 0.99], dtype=torch.float32)
    x = noised(rng, images, alpha_bar.double())
    expected = torch.stack(
        [brute(q, images, ab, EQUIVARIANT_LOCAL) for q, ab in zip(x, alpha_bar, strict=True)]
    )
    assert_same(pm.ScoreMachine(images, **EQUIVARIANT_LOCAL).denoise(x, alpha_bar), expected)


@pytest.mark.parametrize("kind", ["torch", "numpy"])
@every_machine
def test_uint8_images(config, kind):
    rng = np.random.default_rng(9)
    bytes_ = rng.integers(0, 256, (4, 2, 5, 4), dtype=np.uint8)
    bytes_[0, 0, 0, :2] = 0, 255
    floats = torch.from_numpy(bytes_).float() / 127.5 - 1
    machine = pm.ScoreMachine(torch.from_numpy(bytes_) if kind == "torch" else bytes_, **config)
    x = noised(rng, floats.double(), [0.2, 0.9])
    alpha_bar = levels(0.2, 0.9)
    explicit = pm.ScoreMachine(floats, **config)
    assert torch.equal(machine.denoise(x.float(), alpha_bar), explicit.denoise(x.float(), alpha_bar))
    expected = torch.stack([brute(q, floats, ab, config) for q, ab in zip(x, alpha_bar, strict=True)])
    assert_same(machine.denoise(x, alpha_bar), expected)


# --- machines that coincide ----------------------------------------------------------------------------


@FAST
@given(seed=seeds, alpha_bar=noise_levels, extra=st.sampled_from([0, 2, 6]))
def test_local_machine_that_sees_everything_is_the_ideal_machine(seed, alpha_bar, extra):
    rng = np.random.default_rng(seed)
    images = random_images(rng, 5, (2, 4, 7))
    x = noised(rng, images, [alpha_bar] * 2)
    ideal = pm.ScoreMachine(images, **IDEAL).denoise(x, alpha_bar)
    wide = pm.ScoreMachine(images, **LOCAL | {"locality": 13 + extra}).denoise(x, alpha_bar)
    moving = pm.ScoreMachine(images, **BOUNDARY_BROKEN | {"locality": 13 + extra}).denoise(x, alpha_bar)
    assert_same(wide, ideal)
    assert_same(moving, ideal)


@FAST
@given(seed=seeds, alpha_bar=noise_levels, side=st.sampled_from([3, 5, 7]))
def test_wrapped_window_as_large_as_the_image_weighs_whole_images(seed, alpha_bar, side):
    rng = np.random.default_rng(seed)
    images = random_images(rng, 3, (2, side, side))
    x = noised(rng, images, [alpha_bar] * 2)
    moving = pm.ScoreMachine(images, **EQUIVARIANT_LOCAL | {"locality": side}).denoise(x, alpha_bar)
    assert_same(moving, pm.ScoreMachine(images, **EQUIVARIANT).denoise(x, alpha_bar))
    still = pm.ScoreMachine(images, **LOCAL_WRAPPED | {"locality": side}).denoise(x, alpha_bar)
    assert_same(still, pm.ScoreMachine(images, **IDEAL).denoise(x, alpha_bar))


@FAST
@given(seed=seeds, alpha_bar=noise_levels, locality=st.sampled_from([1, 3, 5, 7]))
def test_inside_the_border_the_boundary_broken_machine_uses_interior_patches(seed, alpha_bar, locality):
    rng = np.random.default_rng(seed)
    images = random_images(rng, 3, (2, 9, 8))
    x = noised(rng, images, [alpha_bar] * 2)
    r = locality // 2
    broken = pm.ScoreMachine(images, **BOUNDARY_BROKEN | {"locality": locality}).denoise(x, alpha_bar)
    inside = pm.ScoreMachine(images, **INSIDE | {"locality": locality}).denoise(x, alpha_bar)
    assert_same(broken[..., r : 9 - r, r : 8 - r], inside[..., r : 9 - r, r : 8 - r])


@pytest.mark.parametrize("config", [EQUIVARIANT, EQUIVARIANT_LOCAL, INSIDE], ids=["ES", "ELS", "ELS-inside"])
@FAST
@given(seed=seeds, alpha_bar=noise_levels, down=st.integers(0, 4), right=st.integers(0, 5))
def test_wrapped_machines_commute_with_circular_shifts(config, seed, alpha_bar, down, right):
    rng = np.random.default_rng(seed)
    images = random_images(rng, 3, (2, 5, 6))
    x = noised(rng, images, [alpha_bar] * 2)
    machine = pm.ScoreMachine(images, **config)
    shift = {"shifts": (down, right), "dims": (2, 3)}
    assert_same(machine.denoise(x.roll(**shift), alpha_bar), machine.denoise(x, alpha_bar).roll(**shift))


@FAST
@given(seed=seeds, alpha_bar=noise_levels)
def test_two_images(seed, alpha_bar):
    rng = np.random.default_rng(seed)
    images = random_images(rng, 2, (2, 4, 5))
    x = torch.from_numpy(rng.normal(size=(1, 2, 4, 5)))
    a, b = images
    # |x - s b|^2 - |x - s a|^2 = s sum (a - b) (2 x - s (a + b))
    s = math.sqrt(alpha_bar)
    gap = s * ((a - b) * (2 * x[0] - s * (a + b))).sum().item() / (2 * (1 - alpha_bar))
    expected = (a + b) / 2 + (a - b) / 2 * math.tanh(gap / 2)
    assert_same(pm.ScoreMachine(images, **IDEAL).denoise(x, alpha_bar), expected[None])


# --- what the answer must not depend on ----------------------------------------------------------------


def many_images(rng, config) -> torch.Tensor:
    """Enough images that neither their patches nor their logits fit in one MiB."""
    count = 211 if config["symmetry"] == "translation" else 2003
    return random_images(rng, count, (2, 6, 6))


@every_machine
def test_memory_budget(config):
    rng = np.random.default_rng(10)
    images = many_images(rng, config)
    alpha_bar = levels(0.01, 0.1, 0.5, 0.99)
    x = noised(rng, images, alpha_bar)
    default = pm.ScoreMachine(images, **config).denoise(x, alpha_bar)
    assert_same(pm.ScoreMachine(images, memory_budget=1 << 20, **config).denoise(x, alpha_bar), default)


@every_machine
def test_order_of_the_images(config):
    rng = np.random.default_rng(11)
    images = many_images(rng, config)
    alpha_bar = levels(0.01, 0.5)
    x = noised(rng, images, alpha_bar)
    default = pm.ScoreMachine(images, memory_budget=1 << 20, **config).denoise(x, alpha_bar)
    order = torch.from_numpy(rng.permutation(len(images)))
    for shuffled in (images.flip(0), images[order]):
        machine = pm.ScoreMachine(shuffled, memory_budget=1 << 20, **config)
        assert_same(machine.denoise(x, alpha_bar), default)


@every_machine
@FAST
@given(seed=seeds, alpha_bar=noise_levels)
def test_the_whole_dataset_twice(config, seed, alpha_bar):
    rng = np.random.default_rng(seed)
    images = random_images(rng, 4, (2, 4, 5))
    x = noised(rng, images, [alpha_bar] * 2)
    once = pm.ScoreMachine(images, **config).denoise(x, alpha_bar)
    assert_same(pm.ScoreMachine(torch.cat([images, images]), **config).denoise(x, alpha_bar), once)


@pytest.mark.parametrize("budget", [{}, {"memory_budget": 1 << 20}], ids=["default", "1MiB"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@every_machine
def test_rest_of_the_batch(config, dtype, budget):
    """Alone or in company, the answer has the same bits."""
    rng = np.random.default_rng(12)
    images = random_images(rng, 30, (1, 6, 7))
    classes = torch.from_numpy(rng.integers(0, 3, 30))
    alpha_bar = levels(*ALPHA_BARS, 0.5, 0.3)
    x = noised(rng, images, alpha_bar)
    x[-1] *= 50.0
    x, labels = x.to(dtype), torch.tensor([0, 1, 2, 0, 1, 1, 2, 0])
    plain = pm.ScoreMachine(images.to(dtype), **config, **budget)
    conditional = pm.ScoreMachine(images.to(dtype), labels=classes, **config, **budget)
    together = plain.denoise(x, alpha_bar)
    together_by_class = conditional.denoise(x, alpha_bar, labels=labels)
    for i in range(len(x)):
        one = slice(i, i + 1)
        assert torch.equal(plain.denoise(x[one], alpha_bar[one])[0], together[i])
        alone = conditional.denoise(x[one], alpha_bar[one], labels=labels[one])
        assert torch.equal(alone[0], together_by_class[i])
    part = torch.tensor([6, 2, 2, 7, 0])
    assert torch.equal(plain.denoise(x[part], alpha_bar[part]), together[part])
    by_class = conditional.denoise(x[part], alpha_bar[part], labels=labels[part])
    assert torch.equal(by_class, together_by_class[part])


@every_machine
def test_one_noise_level_per_sample(config):
    rng = np.random.default_rng(13)
    images = random_images(rng, 5, (2, 5, 4))
    alpha_bar = levels(0.9, 0.001, 0.5, 0.9999)
    x = noised(rng, images, alpha_bar)
    machine = pm.ScoreMachine(images, **config)
    together = machine.denoise(x, alpha_bar)
    for i, ab in enumerate(alpha_bar.tolist()):
        assert_same(together[i : i + 1], machine.denoise(x[i : i + 1], ab))


# --- what is in the dictionary -------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [{}, {"memory_budget": 1 << 20}], ids=["default", "1MiB"])
@every_machine
def test_every_image_is_there(config, budget):
    """With hardly any noise each training image is its own nearest neighbour."""
    rng = np.random.default_rng(14)
    images = random_images(rng, 37, (3, 6, 5))
    x = 0.9999**0.5 * images + 0.001 * torch.from_numpy(rng.normal(size=images.shape))
    got = pm.ScoreMachine(images, **config, **budget).denoise(x, 0.9999)
    if config.get("keys") == "inside":
        got, images = got[..., 1:-1, 1:-1], images[..., 1:-1, 1:-1]
    torch.testing.assert_close(got, images, rtol=0, atol=1e-12)


@every_machine
def test_no_signal_gives_the_average_of_the_dictionary(config):
    rng = np.random.default_rng(15)
    channels, height, width = 2, 7, 6
    images = random_images(
        rng, 131 if config["symmetry"] == "translation" else 1201, (channels, height, width)
    )
    mean = images.mean(0)
    if config["symmetry"] == "none":
        expected = mean
    elif config.get("keys") == "inside":
        expected = mean[:, 1:-1, 1:-1].mean((1, 2))[:, None, None].expand_as(mean)
    elif config["padding"] == "circular":
        expected = mean.mean((1, 2))[:, None, None].expand_as(mean)
    else:
        expected = torch.empty_like(mean)
        for i in range(height):
            for j in range(width):
                rows = [0] if i == 0 else [height - 1] if i == height - 1 else range(1, height - 1)
                columns = [0] if j == 0 else [width - 1] if j == width - 1 else range(1, width - 1)
                alike = [mean[:, k, m] for k in rows for m in columns]
                expected[:, i, j] = torch.stack(alike).mean(0)
    x = torch.from_numpy(rng.normal(size=(2, channels, height, width)))
    for budget in ({}, {"memory_budget": 1 << 20}):
        machine = pm.ScoreMachine(images, **config, **budget)
        for alpha_bar in (0.0, levels(0.0, 0.0), 1e-30):
            got = machine.denoise(x, alpha_bar)
            torch.testing.assert_close(got, expected.expand_as(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("locality", [1, 3, 5, 7, 9, 11])
def test_no_signal_averages_positions_with_the_same_border(locality):
    rng = np.random.default_rng(16)
    images = random_images(rng, 3, (1, 6, 9))
    mean = images.mean((0, 1))
    sees = {(i, j): border_signature(i, j, 6, 9, locality) for i in range(6) for j in range(9)}
    expected = torch.empty(6, 9, dtype=torch.float64)
    for place, seen in sees.items():
        expected[place] = torch.stack([mean[other] for other in sees if sees[other] == seen]).mean()
    machine = pm.ScoreMachine(images, **BOUNDARY_BROKEN | {"locality": locality})
    got = machine.denoise(torch.zeros(1, 1, 6, 9, dtype=torch.float64), 0.0)
    torch.testing.assert_close(got[0, 0], expected, rtol=0, atol=1e-12)


@every_machine
@FAST
@given(seed=seeds, alpha_bar=noise_levels, scale=st.sampled_from([0.1, 1.0, 20.0]))
def test_answer_lies_between_the_training_values(config, seed, alpha_bar, scale):
    rng = np.random.default_rng(seed)
    images = random_images(rng, 4, (2, 5, 4))
    x = scale * torch.from_numpy(rng.normal(size=(3, 2, 5, 4)))
    got = pm.ScoreMachine(images, **config).denoise(x, alpha_bar)
    over = (0,) if config["symmetry"] == "none" else (0, 2, 3)  # a still machine stays between pixel by pixel
    low, high = images.amin(over, keepdim=True), images.amax(over, keepdim=True)
    assert (got >= low - 1e-12).all()
    assert (got <= high + 1e-12).all()


@every_machine
def test_classes(config):
    rng = np.random.default_rng(17)
    images = random_images(rng, 7, (2, 5, 4))
    classes = torch.tensor([2, 0, 5, 2, 0, 2, 0])
    labels = torch.tensor([0, 2, 5, 2, 0])
    alpha_bar = levels(0.1, 0.5, 0.3, 0.99, 0.01)
    x = noised(rng, images, alpha_bar)
    got = pm.ScoreMachine(images, labels=classes, **config).denoise(x, alpha_bar, labels=labels)
    for i, label in enumerate(labels):
        own = images[classes == label]
        assert_same(got[i : i + 1], pm.ScoreMachine(own, **config).denoise(x[i : i + 1], alpha_bar[i].item()))
        assert_same(got[i : i + 1], brute(x[i], own, alpha_bar[i], config)[None])


# --- the point group -----------------------------------------------------------------------------------


@pytest.mark.parametrize("group", GROUPS)
@every_machine
def test_group_is_the_transformed_images(config, group):
    rng = np.random.default_rng(18)
    shape = (2, 5, 5) if group in ("rotations", "d4") else (2, 4, 5)
    images = random_images(rng, 2, shape)
    alpha_bar = levels(0.05, 0.5, 0.99)
    x = noised(rng, images, alpha_bar)
    orbit = transformed_images(images.numpy(), group)
    got = pm.ScoreMachine(images, group=group, **config).denoise(x, alpha_bar)
    expected = torch.stack([brute(q, orbit, ab, config) for q, ab in zip(x, alpha_bar, strict=True)])
    assert_same(got, expected)
    assert_same(pm.ScoreMachine(torch.from_numpy(orbit), **config).denoise(x, alpha_bar), got)


@every_machine
def test_group_and_classes(config):
    rng = np.random.default_rng(19)
    images, classes = random_images(rng, 4, (1, 4, 4)), torch.tensor([1, 0, 0, 1])
    labels = torch.tensor([0, 1])
    x = noised(rng, images, [0.3, 0.3])
    machine = pm.ScoreMachine(images, labels=classes, group="rotations", **config)
    expected = [
        brute(q, transformed_images(images[classes == label].numpy(), "rotations"), 0.3, config)
        for q, label in zip(x, labels, strict=True)
    ]
    assert_same(machine.denoise(x, 0.3, labels=labels), torch.stack(expected))


@every_machine
@FAST
@given(seed=seeds, alpha_bar=noise_levels, turns=st.integers(0, 3), mirror=st.booleans())
def test_machine_with_a_group_commutes_with_it(config, seed, alpha_bar, turns, mirror):
    def act(pictures):
        turned = torch.rot90(pictures, turns, (2, 3))
        return turned.flip(3) if mirror else turned

    rng = np.random.default_rng(seed)
    images = random_images(rng, 2, (2, 5, 5))
    x = noised(rng, images, [alpha_bar] * 2)
    machine = pm.ScoreMachine(images, group="d4", **config)
    assert_same(machine.denoise(act(x), alpha_bar), act(machine.denoise(x, alpha_bar)))


# --- score, epsilon, schedule --------------------------------------------------------------------------


@every_machine
@FAST
@given(seed=seeds, first=noise_levels, second=noise_levels)
def test_score_and_epsilon(config, seed, first, second):
    rng = np.random.default_rng(seed)
    images, classes = random_images(rng, 4, (2, 4, 5)), torch.tensor([0, 1, 1, 0])
    alpha_bar = levels(first, second)
    x = noised(rng, images, alpha_bar)
    ab = alpha_bar.reshape(-1, 1, 1, 1)
    for machine, given_labels in (
        (pm.ScoreMachine(images, **config), {}),
        (pm.ScoreMachine(images, labels=classes, **config), {"labels": torch.tensor([1, 0])}),
    ):
        mean = machine.denoise(x, alpha_bar, **given_labels)
        score = machine.score(x, alpha_bar, **given_labels)
        epsilon = machine.epsilon(x, alpha_bar, **given_labels)
        assert_same(score, (ab.sqrt() * mean - x) / (1 - ab))
        assert_same(epsilon, (x - ab.sqrt() * mean) / (1 - ab).sqrt())
        assert_same(epsilon, -(1 - ab).sqrt() * score)
    assert_same(machine.score(x, first, **given_labels)[:1], score[:1])
    assert_same(machine.epsilon(x, first, **given_labels)[:1], epsilon[:1])


@pytest.mark.parametrize(
    "config", [LOCAL, LOCAL_WRAPPED, EQUIVARIANT_LOCAL, BOUNDARY_BROKEN], ids=["LS", "LS-c", "ELS", "bbELS"]
)
def test_locality_schedule(config):
    rng = np.random.default_rng(20)
    images = random_images(rng, 4, (2, 6, 7))
    alpha_bar = levels(0.9, 0.5, 0.1)
    x = noised(rng, images, alpha_bar)
    schedule = pm.LocalitySchedule([0.9, 0.5, 0.1], [3, 5, 7])
    machine = pm.ScoreMachine(images, **config | {"locality": schedule})
    got = machine.denoise(x, alpha_bar)
    for i, (ab, locality) in enumerate([(0.9, 3), (0.5, 5), (0.1, 7)]):
        fixed = config | {"locality": locality}
        one = slice(i, i + 1)
        assert_same(got[one], pm.ScoreMachine(images, **fixed).denoise(x[one], ab))
        assert_same(got[one], brute(x[i], images, ab, fixed)[None])
        assert torch.equal(machine.denoise(x[one], alpha_bar[one]), got[one])
    mixed = torch.tensor([2, 0, 1, 0, 2])
    assert torch.equal(machine.denoise(x[mixed], alpha_bar[mixed]), got[mixed])
