"""What the paper proves or shows about its machines, seen in samples."""

import math

import pytest
import torch
import torch.nn.functional as F

import patchmosaic as pm


def to_zero_noise(machine, noise, *, steps=80, tail_efolds=30.0, tail_steps=90):
    """The reverse flow to its limit.

    A finite grid stops at a finite noise level, while patches keep changing hands for tens of e-folds of
    sigma. So: noise levels evenly spaced in log sigma down to 3e-8, where alpha_bar is 1 to float64, and from
    there the same DDIM step, which reads x <- D + (sigma' / sigma) (x - D).
    """
    sigmas = torch.logspace(math.log10(3e-8), math.log10(80.0), steps, dtype=torch.float64)
    schedule = pm.ArraySchedule(1 / (1 + sigmas**2))
    times = schedule.times(steps)
    *_, last = pm.reverse_flow(machine, noise, times, schedule)
    x, alpha_bar = last.state, last.alpha_bar
    for _ in range(tail_steps):
        prediction = machine.denoise(x, alpha_bar)
        x = prediction + math.exp(-tail_efolds / tail_steps) * (x - prediction)
    return machine.denoise(x, alpha_bar)


def test_ideal_machine_copies_training_images(digits):
    noise = pm.draw_noise(pm.generators(range(40)), (1, 8, 8))
    machine = pm.presets.ideal(digits.images)
    samples = pm.sample(machine, noise).images
    nearest = machine.dictionary.nearest(samples)
    torch.testing.assert_close(samples, digits.images[nearest], rtol=0, atol=1e-6)
    assert len(set(nearest.tolist())) > 20


def test_equivariant_machine_copies_translates(digits):
    images = digits.images[:300]
    noise = pm.draw_noise(pm.generators(range(40)), (1, 8, 8))
    samples = pm.sample(pm.presets.equivariant(images), noise).images
    translates = torch.cat([images.roll((i, j), (2, 3)) for i in range(8) for j in range(8)])
    distance, which = torch.cdist(samples.flatten(1), translates.flatten(1)).min(dim=1)
    assert float(distance.max()) < 1e-5
    moved = which // len(images) != 0
    assert moved.double().mean() > 0.8


@pytest.mark.parametrize(
    ("size", "count"), [(8, 12), pytest.param(16, 200, marks=pytest.mark.slow)], ids=["small", "200 samples"]
)
def test_two_tones_end_in_a_majority_vote(size, count):
    data = pm.load_dataset("two-tone", size=size)
    machine = pm.presets.equivariant_local(data.images, locality=3)
    noise = pm.draw_noise(pm.generators(range(count)), (1, size, size), torch.float64)
    samples = to_zero_noise(machine, noise)
    assert torch.equal(samples.abs(), torch.ones_like(samples))
    votes = F.avg_pool2d(F.pad(samples, (1, 1, 1, 1), mode="circular"), 3, 1)
    assert torch.equal(votes.sign(), samples)
    if count == 200:
        uniform = samples.flatten(1).std(dim=1) == 0
        assert uniform.double().mean() < 0.1


@pytest.mark.parametrize("window", [3, 5])
def test_samples_are_locally_consistent_in_the_limit(digits, window):
    """Theorem 4.1: every pixel ends as the centre of the patch nearest to its window."""
    machine = pm.presets.boundary_broken(digits.images[:100], locality=window)
    noise = pm.draw_noise(pm.generators(range(5)), (1, 8, 8), torch.float64)
    samples = to_zero_noise(machine, noise)
    assert share_consistent(machine, samples, 1e-6) >= 0.995


def test_more_steps_make_samples_more_consistent(digits):
    machine = pm.presets.boundary_broken(digits.images[:100], locality=5)
    noise = pm.draw_noise(pm.generators(range(8)), (1, 8, 8), torch.float64)
    shares = [
        share_consistent(machine, pm.sample(machine, noise, steps=steps).images, 1e-3)
        for steps in (5, 20, 80)
    ]
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] > 0.8


def share_consistent(machine, samples, tolerance):
    nearest_centre = machine.denoise(samples, 1 - 1e-12)
    return float(((nearest_centre - samples).abs() <= tolerance).double().mean())


def test_local_samples_are_no_copies(digits):
    noise = pm.draw_noise(pm.generators(range(8)), (1, 8, 8))
    machine = pm.presets.boundary_broken(digits.images, locality=pm.presets.rule_of_thumb(8))
    samples = pm.sample(machine, noise).images
    found = digits.images[machine.dictionary.nearest(samples)]
    assert float((samples - found).square().mean((1, 2, 3)).sqrt().min()) > 0.2
