"""The reverse flow against closed forms, and that neither the batch nor an interruption changes a sample."""

import math
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch

import patchmosaic as pm
from patchmosaic import CosineSchedule, InputError, NicholCosineSchedule, generators, reverse_flow, sample
from patchmosaic.sampling import ddim_step, ddpm_step, draw_noise, heun_step, time_grid

SOLVERS = ("ddim", "heun", "ddpm")
every_solver = pytest.mark.parametrize("solver", SOLVERS)
COSINE = CosineSchedule()
every_schedule = pytest.mark.parametrize(
    "schedule", [COSINE, NicholCosineSchedule()], ids=["cosine", "nichol"]
)


class Gaussian(pm.Denoiser):
    """The exact denoiser of data with independent pixels N(mean, deviation^2)."""

    def __init__(self, mean: float = 0.3, deviation: float = 0.5):
        self.mean, self.deviation = mean, deviation
        self.calls: list[tuple[float, object]] = []

    def denoise(self, x, alpha_bar, labels=None):
        self.calls.append((alpha_bar, labels))
        gain = math.sqrt(alpha_bar) * self.deviation**2 / self.spread(alpha_bar)
        return self.mean + gain * (x - math.sqrt(alpha_bar) * self.mean)

    def spread(self, alpha_bar):
        """The variance of the noisy pixels."""
        return alpha_bar * self.deviation**2 + 1 - alpha_bar

    def flow(self, x, alpha_bar, following):
        """The probability-flow ODE from one noise level to another."""
        centred = x - math.sqrt(alpha_bar) * self.mean
        scale = math.sqrt(self.spread(following) / self.spread(alpha_bar))
        return math.sqrt(following) * self.mean + scale * centred


class Constant(pm.Denoiser):
    """The exact denoiser of a single training image."""

    def __init__(self, image):
        self.image = image

    def denoise(self, x, alpha_bar, labels=None):
        return self.image.expand_as(x)


every_gaussian = pytest.mark.parametrize(
    "denoiser",
    [Gaussian(0.3, 0.5), Gaussian(-0.6, 0.2), Gaussian(0.0, 2.0)],
    ids=["0.3,0.5", "-0.6,0.2", "0,2"],
)


def unit_noise(seeds, shape=(1, 2, 3), dtype=torch.float64):
    return draw_noise(generators(seeds), shape, dtype)


# --- one step ------------------------------------------------------------------------------------------


def no_draw():
    raise AssertionError("this solver is deterministic")


some_levels = pytest.mark.parametrize(
    ("alpha_bar", "following"), [(1e-4, 0.02), (0.3, 0.5), (0.0, 0.1), (0.98, 0.999)]
)


@some_levels
def test_ddim_step_is_the_formula(alpha_bar, following):
    x, d = unit_noise([0]), unit_noise([1]).tanh()
    epsilon = (x - math.sqrt(alpha_bar) * d) / math.sqrt(1 - alpha_bar)
    expected = math.sqrt(following) * d + math.sqrt(1 - following) * epsilon
    got, prediction = ddim_step(lambda state, level: d, x, alpha_bar, following, no_draw)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-14)
    assert prediction is d


def test_heun_step_is_the_formula():
    """The trapezoid of both predictions, the second one at the end of the DDIM step."""
    x, alpha_bar, following = unit_noise([0]), 0.3, 0.5

    def denoise(state, level):
        return (state * (1 + level)).sin()

    first = denoise(x, alpha_bar)
    ahead, _ = ddim_step(denoise, x, alpha_bar, following, no_draw)
    mean = (first + denoise(ahead, following)) / 2
    expected, _ = ddim_step(lambda state, level: mean, x, alpha_bar, following, no_draw)
    got, prediction = heun_step(denoise, x, alpha_bar, following, no_draw)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-15)
    assert torch.equal(prediction, first)


def bayes(alpha_bar, following) -> tuple[float, float, float]:
    """The weights of x_t and x_0 and the variance in q(x_s | x_t, x_0), from q(x_t | x_s) q(x_s | x_0)."""
    alpha = alpha_bar / following
    precision = alpha / (1 - alpha) + 1 / (1 - following)
    noisy, clean = math.sqrt(alpha) / (1 - alpha), math.sqrt(following) / (1 - following)
    return noisy / precision, clean / precision, 1 / precision


@some_levels
@pytest.mark.parametrize("draw", [0.0, 1.0, -2.5])
def test_ddpm_step_is_the_bayes_posterior(alpha_bar, following, draw):
    x, d = unit_noise([0]), unit_noise([1]).tanh()
    of_x, of_d, variance = bayes(alpha_bar, following)
    expected = of_x * x + of_d * d + math.sqrt(variance) * draw
    got, prediction = ddpm_step(
        lambda state, level: d, x, alpha_bar, following, lambda: torch.full_like(x, draw)
    )
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-14)
    assert prediction is d


# --- whole flows against closed forms ------------------------------------------------------------------


def slope(counts, errors) -> float:
    return -np.polyfit(np.log(counts), np.log(errors), 1)[0]


@every_schedule
@every_gaussian
@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("heun", 2)])
def test_order_halfway(solver, order, denoiser, schedule):
    """From t = 1 to t = 1/2, where nothing is singular."""
    noise, counts, errors = unit_noise(range(4)), (20, 40, 80, 160, 320), []
    exact = denoiser.flow(noise, schedule.alpha_bar(1.0), schedule.alpha_bar(0.5))
    for n in counts:
        times = [1 - i / (2 * n) for i in range(n + 1)]
        *_, last = reverse_flow(denoiser, noise, times, schedule, solver=solver)
        errors.append(float((last.state - exact).abs().max()))
    assert slope(counts[1:], errors[1:]) == pytest.approx(order, abs=0.05)
    assert errors[-1] < {1: 1e-2, 2: 2e-5}[order]


@every_gaussian
@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("heun", 2)])
def test_order_to_the_end(solver, order, denoiser):
    """To the picture itself: errors are c / n for DDIM and (c + d log n) / n^2 for Heun's method.

    The logarithm comes from the end of the flow: an error made k steps before it is of size 1 / (k n)^2, and
    grows k-fold on the way.
    """
    noise, counts = unit_noise(range(4)), np.array([20, 40, 80, 160, 320])
    exact = denoiser.flow(noise, COSINE.alpha_bar(1.0), 1.0)
    errors = [float((sample(denoiser, noise, n, solver=solver).images - exact).abs().max()) for n in counts]
    if order == 1:
        assert slope(counts, errors) == pytest.approx(1, abs=0.05)
    else:
        assert 1.5 < slope(counts, errors) < 2
        rise = np.diff(errors * counts**2)
        assert rise[2:] == pytest.approx(rise[1:-1], rel=0.15)
    assert errors[-1] < {1: 3e-2, 2: 5e-4}[order]


@every_schedule
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_single_training_image_comes_back(solver, steps, schedule):
    image = unit_noise([7]).tanh()
    noise, rngs = unit_noise([1, 2, 3]), generators([4, 5, 6])
    got = sample(Constant(image), noise, steps, schedule, solver=solver, rngs=rngs).images
    assert torch.equal(got, image.expand(3, 1, 2, 3))


@pytest.mark.parametrize("solver", ["ddim", "heun"])
def test_a_single_training_image_gives_straight_lines(solver):
    """Every state is sqrt(ab) image + sqrt(1 - ab) of one and the same noise."""
    image, noise = unit_noise([7]).tanh(), unit_noise([1, 2])
    result = sample(Constant(image), noise, 12, solver=solver, keep_trajectory=True)
    first = result.alpha_bars[0]
    epsilon = (noise - math.sqrt(first) * image) / math.sqrt(1 - first)
    for alpha_bar, state in zip(result.alpha_bars, result.states, strict=True):
        expected = math.sqrt(alpha_bar) * image + math.sqrt(1 - alpha_bar) * epsilon
        torch.testing.assert_close(state, expected, rtol=0, atol=1e-14)


def ancestral_moments(denoiser, steps) -> tuple[float, float]:
    """Mean and variance that ancestral sampling in finitely many steps has for Gaussian data."""
    alpha_bars = [COSINE.alpha_bar(t) for t in COSINE.times(steps)]
    mean, variance = 0.0, 1.0
    for alpha_bar, following in zip(alpha_bars, [*alpha_bars[1:], None], strict=True):
        gain = math.sqrt(alpha_bar) * denoiser.deviation**2 / denoiser.spread(alpha_bar)
        offset = denoiser.mean - gain * math.sqrt(alpha_bar) * denoiser.mean
        of_x, of_d, added = (0.0, 1.0, 0.0) if following is None else bayes(alpha_bar, following)
        mean = (of_x + of_d * gain) * mean + of_d * offset
        variance = (of_x + of_d * gain) ** 2 * variance + added
    return mean, variance


def test_ddpm_samples_gaussian_data():
    """2000 one-pixel samples, within four standard errors of what 20 steps give."""
    count, denoiser = 2000, Gaussian(0.3, 0.5)
    rngs = generators(range(count))
    noise = draw_noise(rngs, (1, 1, 1), torch.float64)
    images = sample(denoiser, noise, 20, solver="ddpm", rngs=rngs).images
    mean, variance = ancestral_moments(denoiser, 20)
    assert float(images.mean()) == pytest.approx(mean, abs=4 * math.sqrt(variance / count))
    assert float(images.var()) == pytest.approx(variance, rel=4 * math.sqrt(2 / count))
    # and what many steps give is the data
    assert ancestral_moments(denoiser, 20_000) == pytest.approx((0.3, 0.25), rel=2e-3)


# --- one generator per sample --------------------------------------------------------------------------


@cache
def digits_machine(name):
    data = pm.load_dataset("digits", limit=60)
    scales = pm.LocalitySchedule([0.9, 0.3], [3, 5])
    locality = {} if name in ("is", "es") else {"locality": scales}
    return pm.presets.MACHINES[name](data.images, labels=data.labels, **locality)


def from_seeds(machine, seeds, solver, labels=None, **options):
    rngs = generators(seeds)
    noise = draw_noise(rngs, machine.dictionary.shape)
    return sample(machine, noise, 4, labels=labels, solver=solver, rngs=rngs, **options)


@pytest.mark.parametrize("seeds", [[], [-1], [0, 1 << 32], np.empty(0, int), np.zeros((2, 2), int)], ids=str)
def test_seeds_that_torch_would_not_tell_apart_are_refused(seeds):
    with pytest.raises(pm.InputError, match="seed"):
        generators(seeds)


def test_any_sequence_of_seeds_will_do():
    first = [rng.initial_seed() for rng in generators([0, 1, 2])]
    for seeds in (range(3), np.arange(3), torch.arange(3)):
        assert [rng.initial_seed() for rng in generators(seeds)] == first
    with pytest.raises(pm.InputError, match="must be a sequence"):
        generators(3)


@every_solver
@pytest.mark.parametrize("name", ["is", "bbels"])
def test_a_seed_gives_the_same_sample_in_any_batch(name, solver):
    machine, seeds, labels = digits_machine(name), (11, 5, 5), torch.tensor([3, 3, 7])
    batch = from_seeds(machine, seeds, solver, labels).images
    for i, seed in enumerate(seeds):
        assert torch.equal(from_seeds(machine, [seed], solver, labels[i : i + 1]).images[0], batch[i])
    backwards = from_seeds(machine, seeds[::-1], solver, labels.flip(0)).images
    assert torch.equal(backwards.flip(0), batch)
    assert len({image.numpy().tobytes() for image in batch}) == 3


def test_draw_noise():
    noise = draw_noise(generators([3, 4, 3]), (2, 5, 7))
    assert noise.shape == (3, 2, 5, 7)
    assert noise.dtype == torch.float32
    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(noise[1], torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(4)))
    many = draw_noise(generators([0]), (1, 100, 100), torch.float64)
    assert many.dtype == torch.float64
    assert float(many.mean()) == pytest.approx(0, abs=0.04)
    assert float(many.std()) == pytest.approx(1, abs=0.03)


# --- trajectories --------------------------------------------------------------------------------------


@every_solver
@pytest.mark.parametrize("start", ["aligned", "authors"])
def test_trajectory(solver, start):
    machine = digits_machine("is")
    result = from_seeds(machine, [1, 2], solver, keep_trajectory=True, start=start)
    count = 4 if start == "aligned" else 3
    assert result.times == tuple(i / 4 for i in range(count, 0, -1))
    assert result.alpha_bars == tuple(COSINE.alpha_bar(t) for t in result.times)
    assert len(result.states) == len(result.predictions) == count
    assert all(tensor.shape == (2, 1, 8, 8) for tensor in (*result.states, *result.predictions))
    assert torch.equal(result.states[0], draw_noise(generators([1, 2]), (1, 8, 8)))
    assert torch.equal(result.predictions[-1], result.images)
    for state, alpha_bar, prediction in zip(
        result.states, result.alpha_bars, result.predictions, strict=True
    ):
        assert torch.equal(machine.denoise(state, alpha_bar), prediction)
    for earlier, later in pairwise(result.states):
        assert not torch.equal(earlier, later)


@every_solver
def test_only_the_images_without_a_trajectory(solver):
    machine = digits_machine("is")
    kept, result = (from_seeds(machine, [1, 2], solver, keep_trajectory=keep) for keep in (True, False))
    assert result.states == result.predictions == ()
    assert (result.times, result.alpha_bars) == (kept.times, kept.alpha_bars)
    assert torch.equal(result.images, kept.images)


@every_solver
@pytest.mark.parametrize("keep_trajectory", [True, False])
def test_callback_sees_every_step_in_order(solver, keep_trajectory):
    seen = []
    noise, rngs = unit_noise([1, 2]), generators([3, 4])
    options = {"solver": solver, "rngs": rngs, "keep_trajectory": keep_trajectory}
    result = sample(Gaussian(), noise, 5, callback=seen.append, **options)
    assert tuple(step.time for step in seen) == (1.0, 0.8, 0.6, 0.4, 0.2)
    assert tuple(step.alpha_bar for step in seen) == result.alpha_bars
    assert torch.equal(seen[0].state, noise)
    for step, following in pairwise(seen):
        assert torch.equal(step.next_state, following.state)
    assert torch.equal(seen[-1].next_state, result.images)
    assert torch.equal(seen[-1].prediction, result.images)


def test_inputs_are_left_alone():
    noise = unit_noise([1, 2])
    copy = noise.clone()
    for solver in SOLVERS:
        sample(Gaussian(), noise, 4, solver=solver, rngs=generators([0, 1]))
    assert torch.equal(noise, copy)


@pytest.mark.parametrize(("solver", "calls"), [("ddim", 5), ("heun", 9), ("ddpm", 5)])
def test_evaluations_and_labels(solver, calls):
    denoiser, labels = Gaussian(), torch.tensor([4, 2])
    result = sample(denoiser, unit_noise([1, 2]), 5, labels=labels, solver=solver, rngs=generators([0, 1]))
    assert len(denoiser.calls) == calls
    assert all(given is labels for _, given in denoiser.calls)
    assert {level for level, _ in denoiser.calls} == set(result.alpha_bars)


@every_solver
@pytest.mark.parametrize(("name", "middle"), [("bbels", 2), ("is", 1), ("is", 3), ("is", 4)])
def test_a_flow_taken_up_again(name, middle, solver):
    machine, seeds = digits_machine(name), [1, 2]
    whole = from_seeds(machine, seeds, solver)

    rngs = generators(seeds)
    times = COSINE.times(4)
    flow = reverse_flow(machine, draw_noise(rngs, (1, 8, 8)), times, COSINE, solver=solver, rngs=rngs)
    state = [next(flow) for _ in range(middle)][-1].next_state
    rest = list(reverse_flow(machine, state, times[middle:], COSINE, solver=solver, rngs=rngs))
    assert len(rest) == 4 - middle
    assert torch.equal(rest[-1].next_state if rest else state, whole.images)


@every_solver
@pytest.mark.parametrize("name", ["is", "es", "ls", "els", "bbels"])
def test_from_pure_noise(name, solver):
    """Nichol & Dhariwal's schedule starts at alpha_bar = 0, where every patch weighs the same."""
    machine = digits_machine(name)
    result = from_seeds(machine, [1], solver, schedule=NicholCosineSchedule(), keep_trajectory=True)
    assert result.alpha_bars[0] == 0.0
    assert all(tensor.isfinite().all() for tensor in (*result.states, *result.predictions))
    if name in ("is", "ls"):
        average = pm.load_dataset("digits", limit=60).images.double().mean(0)
        torch.testing.assert_close(result.predictions[0][0].double(), average, rtol=0, atol=1e-6)


def test_the_papers_cosine_by_default():
    noise = unit_noise([1])
    assert torch.equal(sample(Gaussian(), noise).images, sample(Gaussian(), noise, 20, COSINE).images)
    assert not torch.equal(
        sample(Gaussian(), noise).images, sample(Gaussian(), noise, 20, NicholCosineSchedule()).images
    )


def test_a_denoisers_own_schedule_by_default():
    denoiser, noise = Gaussian(), unit_noise([1])
    denoiser.schedule = NicholCosineSchedule()
    expected = sample(Gaussian(), noise, 20, NicholCosineSchedule())
    found = sample(denoiser, noise, 20)
    assert torch.equal(found.images, expected.images)
    assert found.alpha_bars == expected.alpha_bars
    assert torch.equal(
        sample(denoiser, noise, 20, COSINE).images, sample(Gaussian(), noise, 20, COSINE).images
    )


@pytest.mark.parametrize(("start", "first"), [("aligned", 20), ("authors", 19)])
def test_time_grid(start, first):
    assert time_grid(COSINE, 20, start) == tuple(i / 20 for i in range(first, 0, -1))


# --- errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "euler"}, "solver must be one of ddim, heun, ddpm"),
        ({"schedule": "cosine"}, r"such as pm.CosineSchedule\(\), not 'cosine'"),
        ({"start": "late"}, "start must be 'aligned' or 'authors'"),
        ({"solver": "ddpm"}, r"one generator per sample \(2\)"),
        ({"solver": "ddpm", "rngs": generators([1])}, r"one generator per sample \(2\)"),
        ({"solver": "ddpm", "rngs": generators([1, 2, 3])}, r"one generator per sample \(2\)"),
        ({"steps": 0}, "steps must be a whole number"),
        ({"steps": -1, "start": "authors"}, "steps must be a whole number"),
        ({"steps": 1, "start": "authors"}, "2 or more"),
    ],
)
def test_errors(options, message):
    denoiser = Gaussian()
    with pytest.raises(InputError, match=message) as caught:
        sample(denoiser, unit_noise([1, 2]), **options)
    assert "\n" not in str(caught.value)
    assert denoiser.calls == []


def test_a_flow_needs_a_schedule_itself():
    with pytest.raises(InputError, match="must be a noise schedule"):
        next(reverse_flow(Gaussian(), unit_noise([1]), (1.0, 0.5), CosineSchedule))
