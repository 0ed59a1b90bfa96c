"""The names stand for the machines they say, and the published lists are the published lists."""

from itertools import combinations, pairwise

import pytest
import torch

import patchmosaic as pm
from patchmosaic import InputError, LocalitySchedule, ScoreMachine, presets

COSINE = pm.CosineSchedule()

# Kamb & Ganguli, lowest noise first.
PUBLISHED = {
    "mnist-resnet": "3 3 5 5 5 7 7 7 9 9 11 11 11 11 13 15 15 15 15 15",
    "fashionmnist-resnet": "3 3 5 5 7 7 9 9 9 11 11 11 13 13 13 15 15 15 17 17",
    "cifar10-resnet": "3 3 3 3 5 5 5 7 7 7 7 9 9 11 11 13 15 17 17 17",
    "celeba-resnet": "3 3 3 5 5 5 5 5 7 7 9 9 9 11 11 11 13 15 19 19",
}
every_name = pytest.mark.parametrize("name", PUBLISHED)


# --- published scales ----------------------------------------------------------------------------------


def test_published_names():
    assert set(presets.PUBLISHED_SCALES) == set(PUBLISHED)


@every_name
def test_published_lists(name):
    windows = presets.PUBLISHED_SCALES[name]
    assert list(windows) == [int(window) for window in PUBLISHED[name].split()]
    assert len(windows) == 20
    assert all(window % 2 == 1 for window in windows)


@every_name
@pytest.mark.parametrize("authors_index", [False, True])
def test_published_scales(name, authors_index):
    scales = presets.published_scales(name, authors_index=authors_index)
    first = 0 if authors_index else 1
    windows = [scales(COSINE.alpha_bar((i + first) / 20)) for i in range(20)]
    assert windows == [int(window) for window in PUBLISHED[name].split()]


@pytest.mark.parametrize("name", ["mnist", "", "MNIST-resnet"])
def test_unknown_scales(name):
    with pytest.raises(InputError, match="mnist-resnet, fashionmnist-resnet") as caught:
        presets.published_scales(name)
    assert "\n" not in str(caught.value)


# --- machines ------------------------------------------------------------------------------------------

SCALES = LocalitySchedule([0.9, 0.2], [3, 5])
BY_HAND = {
    "is": {"locality": None, "symmetry": "none"},
    "es": {"locality": None, "symmetry": "translation", "padding": "circular"},
    "ls": {"locality": SCALES, "symmetry": "none", "padding": "zeros"},
    "els": {"locality": SCALES, "symmetry": "translation", "padding": "circular"},
    "bbels": {"locality": SCALES, "symmetry": "translation", "padding": "zeros"},
}
FUNCTIONS = {
    "is": presets.ideal,
    "es": presets.equivariant,
    "ls": presets.local,
    "els": presets.equivariant_local,
    "bbels": presets.boundary_broken,
}
every_machine = pytest.mark.parametrize("name", BY_HAND)


def random_images(count, seed):
    return (
        torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1
    )


IMAGES, X = random_images(8, 0), random_images(4, 1)
LABELS = torch.tensor([0, 1] * 4)
LEVELS = torch.tensor([0.05, 0.4, 0.8, 0.95], dtype=torch.float64)


def preset(name, **options):
    arguments = (SCALES,) if name in presets.LOCAL_MACHINES else ()
    return presets.MACHINES[name](IMAGES, *arguments, **options)


def test_names_of_machines():
    assert presets.MACHINES == FUNCTIONS
    assert presets.LOCAL_MACHINES == ("ls", "els", "bbels")


@every_machine
@pytest.mark.parametrize(
    "options", [{}, {"group": "d4"}, {"labels": LABELS, "memory_budget": 1 << 20}], ids=str
)
def test_a_preset_is_the_machine_it_says(name, options):
    labels = torch.tensor([1, 0, 1, 1]) if "labels" in options else None
    machine = preset(name, **options)
    by_hand = ScoreMachine(IMAGES, **BY_HAND[name], **options)
    assert torch.equal(machine.denoise(X, LEVELS, labels), by_hand.denoise(X, LEVELS, labels))
    assert machine.locality == by_hand.locality
    assert machine.rules == by_hand.rules


def test_no_two_are_the_same_machine():
    answers = {name: preset(name).denoise(X, LEVELS) for name in BY_HAND}
    for a, b in combinations(answers, 2):
        assert float((answers[a] - answers[b]).abs().max()) > 1e-3


def test_local_may_be_wrapped():
    wrapped = presets.local(IMAGES, 3, "circular")
    by_hand = ScoreMachine(IMAGES, locality=3, symmetry="none", padding="circular")
    assert torch.equal(wrapped.denoise(X, LEVELS), by_hand.denoise(X, LEVELS))
    assert not torch.equal(wrapped.denoise(X, LEVELS), presets.local(IMAGES, 3).denoise(X, LEVELS))


# --- rule of thumb -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 4, 8, 12, 13, 14, 15, 16, 28, 32, 64, 101, 256])
def test_rule_of_thumb(size):
    windows = presets.rule_of_thumb(size).windows
    assert len(windows) == 20
    assert all(window % 2 == 1 for window in windows)
    assert all(a <= b for a, b in pairwise(windows))
    assert windows[0] == 3
    assert windows[-1] % 2 == 1
    assert max(7, size / 2) <= windows[-1] <= max(7, size / 2 + 2)


def test_rule_of_thumb_rises_evenly():
    """At 82 pixels from 3 to 43, half of the way in half of the time, to the nearest odd number."""
    windows = presets.rule_of_thumb(82).windows
    assert windows[-1] == 43
    for i, window in enumerate(windows):
        assert abs(window - (3 + 40 * i / 19)) <= 1


@pytest.mark.parametrize("schedule", [COSINE, pm.NicholCosineSchedule(), pm.LinearSchedule()], ids=type)
def test_rule_of_thumb_in_another_schedule(schedule):
    scales = presets.rule_of_thumb(32, schedule)
    assert scales.alpha_bars == tuple(schedule.alpha_bar((i + 1) / 20) for i in range(20))
    assert scales.windows == presets.rule_of_thumb(32).windows


def test_rule_of_thumb_is_in_the_papers_time_by_default():
    assert presets.rule_of_thumb(28) == presets.rule_of_thumb(28, COSINE)


@every_name
def test_rule_of_thumb_is_about_the_published_lists(name):
    published = [int(window) for window in PUBLISHED[name].split()]
    size = 32
    for rule, window in zip(presets.rule_of_thumb(size).windows, published, strict=True):
        assert abs(rule - window) <= 4


def test_a_machine_says_what_it_is():
    machine = presets.equivariant_local(torch.zeros(1500, 3, 4, 5), 3, keys="inside", engine="dense")
    assert repr(machine) == (
        "ScoreMachine(1,500 images of 3 x 4 x 5, locality=3, symmetry='translation', padding='circular', "
        "keys='inside', engine=DenseEngine, tol=0)"
    )
