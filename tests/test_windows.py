"""Several windows at once are the machines of those windows."""

import pytest
import torch

import patchmosaic as pm
from battery import MACHINES, queries, training_images

WINDOWS = [5, 1, 3, 19]


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
            alone = pm.ScoreMachine(images, locality=window, **options)
            torch.testing.assert_close(answer, alone.denoise(x, level, labels), rtol=0, atol=0)


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
