"""Certified screening: the error is within the bound, the bound within the tolerance, and it does leave out."""

import numpy as np
import pytest
import torch

import patchmosaic as pm
from battery import MACHINES, queries, training_images
from patchmosaic.engines import native, screened
from patchmosaic.engines.tree import Layout, Patches, Tree

pytestmark = pytest.mark.skipif(native.library() is None, reason="installed without a C++ compiler")
SHIFTED = {name: rules for name, rules in MACHINES.items() if rules[0] == "translation"}
ROUNDING = 5e-5  # of the exact engine, where it answers


def smooth_images(shape, count, seed=0):
    """Pictures of a few broad waves, as bytes: their patches are few in kind, as those of photographs are."""
    rng = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(shape[1]), torch.arange(shape[2]), indexing="ij")
    wave, phase = (
        0.5 * torch.randn(2, count, 1, 1, generator=rng),
        6.3 * torch.rand(count, 1, 1, generator=rng),
    )
    grey = torch.sin(wave[0] * rows + wave[1] * columns + phase)[:, None]
    colour = torch.rand(count, shape[0], 1, 1, generator=rng)
    return ((grey * colour + 1) * 127.5).round().to(torch.uint8)


def screen(images, rules, window, alpha_bar, tol, labels=None, asked=None, x=None, **options):
    """The certified answer, and by how much it errs at each pixel."""
    symmetry, padding, keys = rules
    choices = {"symmetry": symmetry, "padding": padding, "keys": keys, **options}
    machine = pm.ScoreMachine(images, labels, window, tol=tol, **choices)
    twin = pm.ScoreMachine(images, labels, window, engine="dense", **choices)
    x = queries(twin, alpha_bar) if x is None else x
    answer = machine.denoise_certified(x, alpha_bar, asked)
    torch.testing.assert_close(machine.denoise(x, alpha_bar, asked), answer.mean, rtol=0, atol=0)
    return answer, (answer.mean - twin.denoise(x.double(), alpha_bar, asked)).abs().amax(1)


def assert_certified(answer, error, tol):
    exact = (answer.visited == 1).view(-1, 1, 1)
    assert bool((error <= answer.bound + ROUNDING * exact).all())
    assert bool((answer.bound <= tol).all())


@pytest.mark.parametrize("name", SHIFTED)
@pytest.mark.parametrize("shape", [(1, 14, 14), (3, 16, 13)], ids=str)
@pytest.mark.parametrize("tol", [0.1, 1e-3])
def test_error_is_within_the_bound_within_the_tolerance(name, shape, tol):
    images = smooth_images(shape, 100)
    left_out = 0
    for window, alpha_bar in ((3, 0.5), (3, 0.95), (3, 0.999), (5, 0.99)):
        answer, error = screen(images, SHIFTED[name], window, alpha_bar, tol)
        assert_certified(answer, error, tol)
        left_out += int((answer.visited < 1).sum())
    assert left_out >= (tol == 0.1)


@pytest.mark.parametrize("name", SHIFTED)
@pytest.mark.parametrize("stored", ["bytes", "levels", "floats"])
def test_random_images(name, stored):
    """Patches without structure: far apart, so that what is near is hard to find."""
    images = training_images((1, 9, 12), 70, stored)
    for window, alpha_bar in ((1, 1e-4), (3, 0.0), (3, 0.99), (1, 0.9999)):
        assert_certified(*screen(images, SHIFTED[name], window, alpha_bar, 0.01), 0.01)


def test_most_patches_are_left_out_where_they_are_alike():
    answer, error = screen(smooth_images((3, 16, 16), 250), SHIFTED["bbELS"], 3, 0.99, 1e-3)
    assert_certified(answer, error, 1e-3)
    assert float(answer.visited[0]) < 0.25, "the noised training image"


@pytest.mark.parametrize("count", [2, 7, 113])
@pytest.mark.parametrize("name", SHIFTED)
def test_any_number_of_images(count, name):
    images = smooth_images((2, 9, 11), count)
    assert_certified(*screen(images, SHIFTED[name], 3, 0.99, 0.02), 0.02)


def test_labels_and_groups():
    images = smooth_images((1, 12, 12), 240)
    options = {"labels": torch.arange(240) % 3, "asked": torch.tensor([2, 0]), "group": "d4"}
    answer, error = screen(images, SHIFTED["bbELS"], 3, 0.997, 0.1, **options)
    assert_certified(answer, error, 0.1)
    assert float(answer.visited[0]) < 1


def test_equal_patches():
    images = torch.zeros(80, 1, 10, 10)
    images[::2] = 1
    answer, error = screen(images, SHIFTED["ELS"], 3, 0.99, 1e-3)
    assert_certified(answer, error, 1e-3)
    answer, error = screen(
        torch.full((50, 1, 10, 10), 0.25), SHIFTED["ELS"], 3, 0.99, 1e-3, x=torch.zeros(1, 1, 10, 10)
    )
    assert_certified(answer, error, 1e-3)


@pytest.mark.parametrize("name", MACHINES)
def test_no_tolerance_is_the_exact_engine(name):
    symmetry, padding, keys = MACHINES[name]
    images = smooth_images((3, 9, 9), 60)
    machine, exact = (
        pm.ScoreMachine(images, None, 3, symmetry, padding, keys=keys, **options)
        for options in ({"tol": 0}, {})
    )
    x = queries(exact, 0.99)
    answer = machine.denoise_certified(x, 0.99)
    assert torch.equal(answer.mean, exact.denoise(x, 0.99))
    assert bool((answer.visited == 1).all())
    assert not answer.bound.any()


def test_machines_without_shifts_and_other_input_go_to_the_exact_engine():
    images = smooth_images((1, 9, 9), 60)
    for window, symmetry, x in (
        (3, "none", torch.zeros(1, 1, 9, 9)),
        (3, "translation", torch.zeros(1, 1, 9, 9).double()),
    ):
        tested, exact = (pm.ScoreMachine(images, None, window, symmetry, tol=tol) for tol in (0.1, 0))
        assert torch.equal(tested.denoise(x, 0.9), exact.denoise(x, 0.9))
    assert (
        float(pm.ScoreMachine(images, tol=0.1).denoise_certified(torch.zeros(1, 1, 9, 9), 0.9).visited) == 1
    )


def test_a_sample_is_the_same_alone_and_in_company():
    machine = pm.ScoreMachine(smooth_images((1, 16, 16), 150), None, 3, "translation", tol=0.01)
    x = torch.cat([queries(machine, 0.99), queries(machine, 0.99, seed=7)])
    together = machine.denoise_certified(x, [0.99, 0.99, 0.98, 0.99])
    assert 1 <= int((together.visited < 1).sum()) < 4, "both kinds"
    for i, alpha_bar in enumerate((0.99, 0.99, 0.98, 0.99)):
        alone = machine.denoise_certified(x[i : i + 1], alpha_bar)
        assert all(torch.equal(one[0], other[i]) for one, other in zip(alone, together, strict=True))


def test_boxes_hold_their_patches(monkeypatch):
    """Each patch is in the tree once, inside the boxes of its leaf and its group; also where buckets are many."""
    monkeypatch.setattr("patchmosaic.engines.tree._BUCKET", 1 << 10)
    machine = pm.ScoreMachine(smooth_images((2, 13, 12), 140), None, 3, "translation")
    layout = Layout(machine.dictionary, torch.arange(140), machine.rules, 1)
    inside = torch.arange(13 * 12).view(13, 12)[1:-1, 1:-1].flatten()
    tree = Tree(Patches(layout, inside, inside))
    taken = torch.arange(tree.members.shape[1]) < tree.sizes[:, None]
    assert torch.equal(tree.members[taken].sort().values, tree.patches.pixels().sort().values)
    side_by_side = native.library().screen_lanes()
    for g in range(tree.groups):
        members = tree.members[g, : tree.sizes[g]].contiguous()
        points = tree._numbers(members).double() @ tree.rotation.double()
        lanes = torch.arange(len(members)) // (tree.members.shape[1] // side_by_side)
        leaf, group = tree.leaf_boxes[g], tree.group_boxes[g // side_by_side, :, :, g % side_by_side]
        assert bool(((points >= leaf[:, 0, lanes].T) & (points <= leaf[:, 1, lanes].T)).all())
        assert bool(((points >= group[:, 0]) & (points <= group[:, 1])).all())


def test_trees_of_classes_stay_within_bounds(monkeypatch):
    monkeypatch.setattr(screened, "_KEPT", 1 << 17)
    machine = pm.ScoreMachine(
        smooth_images((1, 14, 14), 300), torch.arange(300) % 6, 3, "translation", tol=0.01
    )
    x = queries(machine, 0.99)[:1]
    for label in range(6):
        machine.denoise(x, 0.99, label)
    assert 1 <= len(machine.engine._searches) < 6


@pytest.mark.parametrize("tol", [-1e-3, float("nan"), 2, float("inf"), "1e-3", None])
def test_wrong_tolerances(tol):
    with pytest.raises(pm.InputError, match=r"tol must be a number in \[0, 2\)"):
        pm.ScoreMachine(training_images((1, 4, 4), 2, "bytes"), tol=tol)


@pytest.mark.parametrize("tol", [np.float32(1e-3), np.float64(1e-3), np.int64(1)])
def test_tolerances_of_numpy(tol):
    assert pm.ScoreMachine(training_images((1, 4, 4), 2, "bytes"), tol=tol).tol == float(tol)
