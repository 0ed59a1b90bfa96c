"""Several windows at once are the machines of those windows."""

import pytest
import torch

import patchmosaic as pm
from battery import ALPHA_BARS, MACHINES, SHAPES, queries, training_images
from patchmosaic.engines import BoxEngine, box, native
from test_screened import smooth_images

WINDOWS = [5, 1, 3, 19]
TOLERANCE = 1e-4
needs_compiled = pytest.mark.skipif(native.library() is None, reason="installed without a C++ compiler")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MACHINES)
def test_each_window_is_its_own_machine(name, dtype):
    symmetry, padding, keys = MACHINES[name]
    windows = [window for window in WINDOWS if keys == "all" or window <= 6]
    images = training_images((2, 6, 7), 40, "bytes")
    options = {"labels": torch.arange(40) % 3, "symmetry": symmetry, "padding": padding, "keys": keys}
    machine = pm.ScoreMachine(images, locality=1, **options)
    x = queries(machine, 0.6).to(dtype)
    for level, labels in ((0.6, None), (torch.tensor([0.2, 0.9]), torch.tensor([2, 0]))):
        together = machine.denoise_windows(x, level, windows, labels)
        assert together.dtype == dtype
        for answer, window in zip(together, windows, strict=True):
            alone = pm.ScoreMachine(images, locality=window, **options).denoise(x, level, labels)
            torch.testing.assert_close(answer, alone, rtol=0, atol=TOLERANCE if nests(machine, dtype) else 0)


def nests(machine, dtype):
    """Whether several windows are summed in one pass, which rounds in another order."""
    return isinstance(machine.engine, BoxEngine) and machine.engine._sees_border and dtype == torch.float32


def largest_error(machine, x, alpha_bar, windows, labels=None):
    """Between several windows in one pass and each in float64, by itself."""
    images = machine.dictionary.images(torch.arange(len(machine.dictionary)), torch.float64)
    found = machine.denoise_windows(x, alpha_bar, windows, labels)
    worst = 0.0
    for answer, window in zip(found, windows, strict=True):
        twin = pm.presets.boundary_broken(images, window, labels=machine.dictionary.labels, engine="dense")
        error = answer - twin.denoise(x.double(), alpha_bar, labels)
        worst = max(worst, float(error.abs().nan_to_num(nan=torch.inf).max()))
    return worst


@needs_compiled
@pytest.mark.parametrize("alpha_bar", ALPHA_BARS)
@pytest.mark.parametrize(("shape", "stored"), [*SHAPES, ((4, 7, 12), "floats"), ((3, 14, 11), "bytes")])
def test_nested_windows_are_right(shape, stored, alpha_bar):
    """Also of 37 images, which fill no block, and with windows that see the whole image, or one pixel."""
    images = training_images(shape, 37, stored)
    machine = pm.presets.boundary_broken(images, 3, labels=torch.arange(37) % 2, engine="box")
    x = queries(machine, alpha_bar)
    assert largest_error(machine, x, alpha_bar, (3, 5, 9, 1, 41)) <= TOLERANCE
    assert largest_error(machine, x, alpha_bar, (7, 3), torch.tensor([1, 0])) <= TOLERANCE


@needs_compiled
@pytest.mark.parametrize("far", [0.0, 3.0, 30.0])
@pytest.mark.parametrize("alpha_bar", [0.05, 0.5, 0.9, 0.99])
def test_what_leaves_a_nested_window_leaves_nothing_behind(alpha_bar, far):
    """The left of the picture is far from all images: of sums that great, rounding must not stay in those beside it."""
    machine = pm.presets.boundary_broken(smooth_images((3, 20, 20), 40), 3, engine="box")
    x = queries(machine, alpha_bar)
    x[..., :5] += far
    assert largest_error(machine, x, alpha_bar, (3, 5, 7, 11)) <= TOLERANCE


@needs_compiled
@pytest.mark.parametrize("shift", [0.3, 1.0, 1.05])
def test_what_is_far_from_all_images_is_told_apart(shift):
    """Seen whole, images that differ in a pixel are up to 20,000 bits away, a few bits apart."""
    images = training_images((3, 24, 24), 1, "floats").mul(0.7).repeat(20, 1, 1, 1)
    for i in range(20):
        images[i, :, i, i] += 0.01 * (i + 1)
    x = 0.93**0.5 * images[3:4] + shift
    machine = pm.presets.boundary_broken(images, 3, engine="box")
    assert largest_error(machine, x, 0.93, (3, 47)) <= TOLERANCE


@needs_compiled
def test_nested_windows_do_not_depend_on_batch_threads_or_order(digits):
    machine = pm.presets.boundary_broken(digits.images[:300], 3)
    x, level = queries(machine, 0.7), torch.tensor([0.7, 0.3])
    together = machine.denoise_windows(x, level, (3, 5, 7))
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    again = machine.denoise_windows(x[:1], level[:1], (7, 3, 5, 3))
    torch.set_num_threads(threads)
    assert torch.equal(again, together[[2, 0, 1, 0], :1])


@pytest.mark.parametrize("locality", [None, 3, pm.LocalitySchedule([0.9, 0.1], [3, 5])])
def test_a_machines_own_locality_does_not_matter(locality):
    images = training_images((1, 5, 5), 20, "bytes")
    machine = pm.ScoreMachine(images, locality=locality)
    x = queries(machine, 0.5)
    expected = pm.ScoreMachine(images, locality=7).denoise(x, 0.5)
    torch.testing.assert_close(machine.denoise_windows(x, 0.5, (7,))[0], expected, rtol=0, atol=0)


@pytest.mark.parametrize(("windows", "says"), [((), "one window"), ((3, 4), "odd"), ((-1,), "odd")])
def test_windows_that_are_none(windows, says):
    machine = pm.ScoreMachine(training_images((1, 5, 5), 4, "bytes"))
    with pytest.raises(pm.InputError, match=says):
        machine.denoise_windows(queries(machine, 0.5), 0.5, windows)


@needs_compiled
@pytest.mark.parametrize("build", native.builds(), ids=lambda path: path.stem)
@pytest.mark.parametrize("alpha_bar", [1 - 1e-7, 0.9999, 0.5])
def test_pictures_far_from_all_images_in_every_build(build, alpha_bar, monkeypatch):
    """Where no patch can be told from another before it is measured in double, the others weigh nothing, not little."""
    library = native.load(build)
    monkeypatch.setattr(box, "compiled", lambda: library)
    images = training_images((1, 9, 9), 20, "floats").sign()
    machine = pm.presets.boundary_broken(images, 3, engine="box")
    for x in (2.3 * images[:1], torch.full((1, 1, 9, 9), 0.7), queries(machine, alpha_bar)):
        assert largest_error(machine, x, alpha_bar, (3, 5, 7, 9)) <= TOLERANCE
