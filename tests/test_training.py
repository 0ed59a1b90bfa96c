"""Training: batches that depend on the step alone, exact resuming, losses that must be finite and fall."""

import signal
import threading

import numpy as np
import pytest
import torch

import patchmosaic as pm
from mistakes import assert_one_clear_line
from patchmosaic.cli import main
from patchmosaic.data import DataSettings
from patchmosaic.nets import load_network
from patchmosaic.records import read_tensors
from patchmosaic.training import Batches, Training, TrainSettings
from patchmosaic.training import training as module

SMALL = ["--limit", "50", "--width", "8", "--layers", "2", "--batch", "16", "--steps", "9", "--lr", "1e-3"]


def run(folder, *arguments):
    return main(["train", "--out", str(folder), *SMALL, *arguments])


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_an_epoch_holds_every_image_once_and_batches_depend_on_the_step_alone():
    data = pm.load_dataset("digits", limit=50)
    settings = TrainSettings(batch=16, seed=3)
    batches = Batches(data, settings)
    forward = [batches.of(step) for step in range(8)]
    for step in (5, 0, 7):
        assert all(torch.equal(a, b) for a, b in zip(forward[step][:3], batches.of(step)[:3], strict=True))
    for epoch in (forward[:4], forward[4:]):
        clean = []
        for noisy, noise, times, _ in epoch:
            alpha_bar = pm.CosineSchedule().alpha_bar(times).float().view(-1, 1, 1, 1)
            clean.append((noisy - (1 - alpha_bar).sqrt() * noise) / alpha_bar.sqrt())
        found = torch.cat(clean)[:, None] - data.images[None]
        assert torch.equal(found.abs().amax((2, 3, 4)).argmin(1).sort().values, torch.arange(50))
    assert not torch.equal(forward[0][0], forward[4][0])
    assert not torch.equal(forward[0][0], Batches(data, TrainSettings(batch=16, seed=4)).of(0)[0])


def test_times_are_uniform_and_noise_is_unit():
    data = pm.load_dataset("digits")
    batches = Batches(data, TrainSettings(batch=1797))
    _, noise, times, _ = batches.of(0)
    assert torch.allclose(times.sort().values, (torch.arange(1797) + 0.5) / 1797, atol=1 / 1797)
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02


@pytest.mark.parametrize("options", [[], ["--ema", "0.5"], ["--conditional", "--network", "unet"]], ids=str)
def test_resuming_gives_the_same_bytes(tmp_path, monkeypatch, options, capsys):
    assert run(tmp_path / "whole", *options) == 0
    take, taken = Training._take, []

    def interrupted(self, batches):
        taken.append(self.step)
        if len(taken) == 5:
            raise KeyboardInterrupt
        take(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "_take", interrupted)
        assert run(tmp_path / "cut", *options) == 130
    assert "--resume" in capsys.readouterr().err
    assert run(tmp_path / "cut", *options, "--resume") == 0
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_ctrl_c_within_a_step_waits_for_its_end(tmp_path, monkeypatch):
    options = ("--ema", "0.5")
    assert run(tmp_path / "whole", *options) == 0
    adam, steps = torch.optim.Adam.step, []

    def interrupted(self, closure=None):
        adam(self, closure)
        steps.append(1)
        if len(steps) == 5:
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(torch.optim.Adam, "step", interrupted)
            assert run(tmp_path / "cut", *options) == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(steps) == 5
    assert run(tmp_path / "cut", *options, "--resume") == 0
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_other_threads_can_train(tmp_path):
    codes = []
    thread = threading.Thread(target=lambda: codes.append(run(tmp_path / "run")))
    thread.start()
    thread.join()
    assert codes == [0]


def test_overwriting_leaves_nothing_of_the_old_training(tmp_path):
    assert run(tmp_path / "new") == 0
    assert run(tmp_path / "run", "--steps", "12") == 0
    (tmp_path / "run" / "network" / "scales").mkdir()
    (tmp_path / "run" / "network" / "scales" / "ls.json").write_text("{}")
    (tmp_path / "run" / "notes.txt").write_text("not of the training")
    assert run(tmp_path / "run", "--overwrite") == 0
    assert contents(tmp_path / "run").keys() - contents(tmp_path / "new").keys() == {"notes.txt"}


def test_the_loss_falls_and_the_network_is_read_back(tmp_path):
    assert run(tmp_path / "run", "--steps", "60") == 0
    losses = np.loadtxt(tmp_path / "run" / "loss.csv", delimiter=",", skiprows=1)[:, 1]
    assert losses[-10:].mean() < 0.8 * losses[:10].mean()
    network = load_network(tmp_path / "run")
    assert network.data() == DataSettings(limit=50)
    assert network.shape == (1, 8, 8)
    assert network.receptive_field == 9
    data = pm.load_dataset("digits", limit=50)
    assert network.recipe()["data"]["fingerprint"] == data.fingerprint


def test_the_average_follows_the_weights(tmp_path):
    data = pm.load_dataset("digits", limit=16)
    training = Training(tmp_path, TrainSettings(width=4, layers=1, batch=16, steps=3, ema=0.75), data)
    batches, seen = Batches(data, training.settings), []
    for _ in range(3):
        training._take(batches)
        seen.append(next(training.model.parameters()).detach().clone())
    expected = seen[0]
    for weights in seen[1:]:
        expected = 0.75 * expected + 0.25 * weights
    assert torch.allclose(next(training.network().parameters()), expected, atol=1e-7)


def test_the_learning_rate_decays_from_the_step_alone(tmp_path):
    data = pm.load_dataset("digits", limit=16)
    settings = TrainSettings(width=4, layers=1, batch=16, steps=3, lr=1e-2, decay=0.5)
    training = Training(tmp_path, settings, data)
    rates = []
    for _ in range(3):
        training._take(Batches(data, settings))
        rates.append(training.optimizer.param_groups[0]["lr"])
    assert rates == [1e-2, 5e-3, 2.5e-3]


def test_a_loss_that_is_not_finite_stops_with_one_line(tmp_path, capsys):
    assert run(tmp_path / "run", "--lr", "9", "--steps", "200") == 1
    error = capsys.readouterr().err
    assert "--lr" in error
    assert len(error.strip().splitlines()) == 1, error
    assert "Traceback" not in error


def test_a_loss_that_does_not_fall_stops_with_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 5)
    data = pm.load_dataset("digits", limit=16)
    training = Training(tmp_path, TrainSettings(width=4, layers=1, steps=9, lr=1e-9), data)
    with pytest.raises(pm.InputError, match="after 5 steps the loss"):
        training.run(lambda loss: None, 100)


BAD = {
    "unknown network": ("--network vgg", "resnet"),
    "unknown padding": ("--padding mirror", "zeros"),
    "no width": ("--width 0", "width"),
    "no steps": ("--steps 0", "steps"),
    "negative rate": ("--lr -1", "lr"),
    "rate of nan": ("--lr nan", "lr"),
    "average of one": ("--ema 1", "ema"),
    "no classes": ("--data two-tone --conditional", "no classes"),
    "sides not divisible": ("--network unet --size 6", "divisible"),
    "attention width": ("--network attention-unet --width 12", "divisible by 8"),
    "epochs and steps": ("--steps 2 --epochs 2", "not allowed"),
    "half precision on a CPU": ("--precision fp16", "bf16"),
    "unknown precision": ("--precision fp4", "bf16"),
    "missing file": ("--data nowhere.parquet", "nowhere.parquet"),
    "nothing to resume": ("--resume", "nothing to resume"),
    "no device": ("--device tpu9", "device"),
}


@pytest.mark.parametrize("mistake", BAD)
def test_mistakes_take_one_clear_line(tmp_path, capsys, mistake):
    arguments, hint = BAD[mistake]
    command = ["train", *SMALL, "--out", str(tmp_path / "run"), *arguments.split()]
    assert_one_clear_line(tmp_path, capsys, command, hint)


def test_a_state_that_was_cut_short_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Training, "_finish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run(tmp_path / "run") == 130
    state = tmp_path / "run" / "unfinished" / "state.safetensors"
    read_tensors(state)
    state.write_bytes(state.read_bytes()[:1000])
    capsys.readouterr()
    assert run(tmp_path / "run", "--resume") == 1
    assert "state.safetensors" in capsys.readouterr().err
