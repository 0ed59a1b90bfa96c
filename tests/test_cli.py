"""The command line as its users meet it: results, resuming, and mistakes."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import patchmosaic as pm
from mistakes import assert_one_clear_line
from patchmosaic import plots, records, viz
from patchmosaic.cli import main
from patchmosaic.machine import ScoreMachine
from patchmosaic.reproduction.rows import ROWS

SMALL = ["--limit", "40", "--steps", "5", "--count", "5", "--batch", "2"]
RESULTS = ["grid.png", "metrics.json", "run.json", "samples.safetensors"]


def generate(folder, *arguments):
    return main(["generate", "--out", str(folder), *SMALL, *arguments])


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def test_a_run_folder_holds_results_and_their_origin(tmp_path, digits):
    assert generate(tmp_path / "run", "--labels", "3,1", "--trajectory") == 0
    assert sorted(contents(tmp_path / "run")) == RESULTS
    tensors, _ = records.read_tensors(tmp_path / "run" / "samples.safetensors")
    few = pm.load_dataset("digits", limit=40)
    machine = pm.presets.boundary_broken(few.images, pm.presets.rule_of_thumb(8), labels=few.labels)
    labels = torch.tensor([3, 1, 3, 1, 3])
    noise = pm.draw_noise(pm.generators(range(5)), (1, 8, 8))
    expected = pm.sample(machine, noise, steps=5, labels=labels, keep_trajectory=True)
    assert torch.equal(tensors["images"], expected.images)
    assert torch.equal(tensors["states"], torch.stack(expected.states, 1))
    assert torch.equal(tensors["predictions"], torch.stack(expected.predictions, 1))
    assert torch.equal(tensors["labels"], labels)
    assert torch.equal(few.labels[tensors["nearest"]], labels)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["data"]["fingerprint"] == few.fingerprint
    assert record["config"]["seeds"] == [0, 1, 2, 3, 4]
    assert record["versions"]["torch"] == torch.__version__
    assert record["locality"]["windows"] == list(pm.presets.rule_of_thumb(8).windows)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert sorted(metrics) == ["nearest_rmse", "nearest_rmse_median"], "the digits are no files"
    with Image.open(tmp_path / "run" / "grid.png") as picture:
        assert picture.width > 400


def test_nearest_is_reported_by_row_of_the_source(tmp_path):
    assert (
        generate(tmp_path / "run", "--machine", "is", "--classes", "7", "--subset-seed", "1", "--steps", "20")
        == 0
    )
    tensors, _ = records.read_tensors(tmp_path / "run" / "samples.safetensors")
    whole = pm.load_dataset("digits")
    torch.testing.assert_close(tensors["images"], whole.images[tensors["nearest"]], rtol=0, atol=1e-5)


@pytest.mark.parametrize("extra", [[], ["--solver", "ddpm", "--trajectory"], ["--solver", "heun"]])
def test_same_command_same_bytes_whatever_the_batch(tmp_path, extra):
    assert generate(tmp_path / "a", *extra) == 0
    assert generate(tmp_path / "b", *extra, "--batch", "3") == 0
    first = contents(tmp_path / "a")
    assert first == contents(tmp_path / "b")
    assert generate(tmp_path / "a", *extra, "--overwrite") == 0
    assert first == contents(tmp_path / "a")


def test_repeating_a_complete_run_leaves_it_alone(tmp_path, monkeypatch, capsys):
    assert generate(tmp_path / "run") == 0
    before = contents(tmp_path / "run")
    done = count_denoising(monkeypatch)
    assert generate(tmp_path / "run") == 0
    assert "already complete" in capsys.readouterr().out
    assert not done
    assert contents(tmp_path / "run") == before


@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
@pytest.mark.parametrize("calls", [0, 1, 7, 13])
def test_resuming_an_interrupted_run_gives_the_same_bytes(tmp_path, monkeypatch, capsys, solver, calls):
    extra = ["--solver", solver, "--trajectory"]
    assert generate(tmp_path / "whole", *extra) == 0
    interrupt_after(monkeypatch, calls)
    assert generate(tmp_path / "cut", *extra) == 130
    assert "--resume" in capsys.readouterr().err
    monkeypatch.undo()
    done = count_denoising(monkeypatch)
    assert generate(tmp_path / "cut", *extra) == 1, "an unfinished run is not started anew unasked"
    assert generate(tmp_path / "cut", *extra, "--resume") == 0
    assert len(done) == 15 - calls, "what was done is not done again"
    assert contents(tmp_path / "whole") == contents(tmp_path / "cut")
    assert generate(tmp_path / "cut", *extra, "--resume") == 0
    assert "already complete" in capsys.readouterr().out


def test_what_has_not_begun_is_not_to_be_resumed(tmp_path, monkeypatch, capsys):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("patchmosaic.generation.run.Config.load", stop)
    assert generate(tmp_path / "run") == 130
    assert capsys.readouterr().err == "\npatchmosaic: stopped before anything was kept\n"
    assert generate(tmp_path / "run", "--resume") == 130
    assert "--resume goes on from here" in capsys.readouterr().err, "another call has kept it"


def test_reproduce_goes_on_by_itself(tmp_path, monkeypatch, capsys):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("patchmosaic.reproduction.command._run", stop)
    assert main(["reproduce", next(iter(ROWS)), "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "\npatchmosaic: stopped; the same command goes on from here\n"


def interrupt_after(monkeypatch, calls):
    done = []
    denoise = ScoreMachine.denoise

    def interrupted(self, *arguments):
        if len(done) == calls:
            raise KeyboardInterrupt
        done.append(1)
        return denoise(self, *arguments)

    monkeypatch.setattr(ScoreMachine, "denoise", interrupted)


def count_denoising(monkeypatch):
    done = []
    denoise = ScoreMachine.denoise
    monkeypatch.setattr(ScoreMachine, "denoise", lambda *arguments: done.append(1) or denoise(*arguments))
    return done


def test_ctrl_c_in_a_real_terminal_command(tmp_path):
    arguments = ["generate", "--steps", "250", "--count", "2", "--limit", "60", "--dtype", "float64"]
    command = [sys.executable, "-m", "patchmosaic", *arguments]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "cut")],
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "cut" / "run.json").exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in error
    assert main([*arguments, "--out", str(tmp_path / "cut"), "--resume"]) == 0
    assert main([*arguments, "--out", str(tmp_path / "whole")]) == 0
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def make_inputs(folder):
    (folder / "empty").mkdir()
    (folder / "text.png").write_text("not a picture")
    (folder / "fake").mkdir()
    (folder / "fake" / "a.png").write_text("not a picture")
    (folder / "mixed").mkdir()
    for i, size in enumerate((4, 5)):
        Image.fromarray(np.zeros((size, size), np.uint8)).save(folder / "mixed" / f"{i}.png")
    np.save(folder / "nan.npy", np.full((3, 1, 4, 4), np.nan, np.float32))
    np.save(folder / "int.npy", np.zeros((3, 1, 4, 4), np.int64))
    np.save(folder / "flat.npy", np.zeros((3, 4), np.uint8))
    np.save(folder / "wide.npy", np.zeros((3, 1, 4, 6), np.uint8))
    (folder / "cut.parquet").write_bytes(b"PAR1 and then nothing")
    (folder / "scales.json").write_text("{")
    (folder / "deep.json").write_text("[" * 100_000)
    os.mkfifo(folder / "pipe.npy")
    (folder / "loop").symlink_to("loop")
    (folder / "even.json").write_text('{"alpha_bars": [0.5], "windows": [4]}')
    (folder / "file").write_text("")
    (folder / "occupied").mkdir()
    (folder / "occupied" / "thesis.txt").write_text("precious")


BAD = {
    "missing file": ("--data {0}/nowhere.parquet", "nowhere.parquet"),
    "unknown data set": ("--data imagenot", "digits"),
    "empty folder": ("--data {0}/empty", "empty"),
    "text named png": ("--data {0}/fake", "a.png"),
    "mixed sizes": ("--data {0}/mixed", "size"),
    "NaN": ("--data {0}/nan.npy", "NaN"),
    "wrong dtype": ("--data {0}/int.npy", "int64"),
    "wrong shape": ("--data {0}/flat.npy", "flat.npy"),
    "truncated parquet": ("--data {0}/cut.parquet", "cut.parquet"),
    "a pipe": ("--data {0}/pipe.npy", "neither a file nor a folder"),
    "unknown file type": ("--data {0}/file", "file"),
    "unknown class": ("--classes 11", "11"),
    "limit of zero": ("--limit 0", "limit"),
    "negative size": ("--size -8", "size"),
    "two channels": ("--channels 2", "channels"),
    "even window": ("--window 4", "odd"),
    "negative window": ("--window -3", "odd"),
    "window and scales": ("--window 3 --scales mnist-resnet", "not both"),
    "window for IS": ("--machine is --window 3", "whole image"),
    "unknown machine": ("--machine elf", "bbels"),
    "unknown scales": ("--scales imagenet", "mnist-resnet"),
    "broken scales": ("--scales {0}/scales.json", "scales.json"),
    "scales without end": ("--scales {0}/deep.json", "deep.json"),
    "even scales": ("--scales {0}/even.json", "odd"),
    "unknown label": ("--labels 12", "12"),
    "labels without classes": ("--data two-tone --labels 0", "labels"),
    "no steps": ("--steps 0", "steps"),
    "steps without end": ("--steps 1000000000000", "to 1,000,000"),
    "unknown schedule": ("--schedule square", "cosine"),
    "unknown solver": ("--solver euler", "heun"),
    "unknown start": ("--start never", "aligned"),
    "authors' start with one step": ("--start authors --steps 1", "2 or more"),
    "unknown engine": ("--engine steam", "dense"),
    "unknown device": ("--device abacus", "cpu"),
    "unknown dtype": ("--dtype float16", "float32"),
    "unknown group": ("--group monster", "d4"),
    "turning oblongs": ("--data {0}/wide.npy --group d4", "square"),
    "inner keys without wrapping": ("--keys inside", "for els"),
    "padding for bbels": ("--padding circular", "ls only"),
    "no memory": ("--memory 1K", "1MiB"),
    "no pictures": ("--count 0", "at least 1"),
    "negative seed": ("--seeds=-1", "seed"),
    "output is a file": ("--out {0}/file", "--out"),
    "output below a file": ("--out {0}/file/run", "Not a directory"),
    "output in a loop": ("--out {0}/loop", "loop"),
    "output of too long a name": ("--out {0}/" + 300 * "n", "choose another folder"),
    "output in use": ("--out {0}/occupied", "--out"),
    "nothing to resume": ("--resume", "nothing to resume"),
    "resumed and overwritten": ("--resume --overwrite", "not allowed with"),
    "unknown name of a label": ("--labels one", "digits has no class 'one': choose from 0, 1, 2, 3"),
    "name of a label without classes": (
        "--data two-tone --labels one",
        "no class 'one': two-tone has no labels",
    ),
    "words for numbers": ("--seeds one", "integers"),
    "no such option": ("--colour red", "--help"),
    "no size": ("--memory lots", "2GiB"),
}


@pytest.mark.parametrize("mistake", BAD)
def test_mistakes_take_one_clear_line(tmp_path, capsys, mistake):
    make_inputs(tmp_path)
    arguments, hint = BAD[mistake]
    command = ["generate", "--count", "2", "--limit", "20", "--steps", "2", "--out", str(tmp_path / "run")]
    assert_one_clear_line(tmp_path, capsys, [*command, *arguments.format(tmp_path).split()], hint)


def of_classes(folder, names):
    for i, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        Image.fromarray(np.full((8, 8), 200 * i, np.uint8)).save(folder / name / "0.png")
    return ["generate", "--data", str(folder), "--count", "2", "--steps", "2"]


def test_an_unknown_label_is_told_with_the_names_of_the_classes(tmp_path, capsys):
    command = [*of_classes(tmp_path / "in", ("cat", "dog")), "--out", str(tmp_path / "run"), "--labels"]
    assert_one_clear_line(tmp_path, capsys, [*command, "2"], "label 2: choose from 0 'cat', 1 'dog'")


@pytest.mark.parametrize(
    ("names", "given", "labels"),
    [
        (("cat", "dog"), "dog,0", [1, 0]),
        (("1", "3"), "3,1", [1, 0]),  # a name comes before a number
        (("10", "20"), "1,0", [1, 0]),
    ],
)
def test_a_label_is_a_name_or_a_number(tmp_path, names, given, labels):
    command = of_classes(tmp_path / "in", names)
    assert main([*command, "--labels", given, "--out", str(tmp_path / "run")]) == 0
    assert records.read_tensors(tmp_path / "run" / "samples.safetensors")[0]["labels"].tolist() == labels
    assert main([*command, "--classes", given, "--out", str(tmp_path / "classes")]) == 0
    assert records.read_json(tmp_path / "classes" / "run.json")["data"]["shape"][0] == 2


def test_letters_of_names_are_drawn_and_those_that_cannot_be_are_nothing_to_warn_of(tmp_path):
    image = torch.zeros(1, 1, 8, 8)
    one, other = (np.asarray(viz.pairs(image, image, [[name]], "", "")) for name in "ÄÖ")
    assert not np.array_equal(one, other)
    page, panels = plots.figure(1, 1, 2, 2)
    panels[0, 0].set_title("日本")
    plots.save(page, tmp_path / "page.png")


def test_other_settings_do_not_replace_a_run(tmp_path, capsys):
    assert generate(tmp_path / "run") == 0
    before = contents(tmp_path / "run")
    for extra in (["--seed", "9"], ["--seed", "9", "--resume"]):
        assert generate(tmp_path / "run", *extra) == 1
        error = capsys.readouterr().err
        assert "seeds" in error
        assert "--overwrite" in error
        assert contents(tmp_path / "run") == before
    assert generate(tmp_path / "run", "--seed", "9", "--overwrite") == 0
    assert contents(tmp_path / "run") != before


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, monkeypatch, capsys):
    assert generate(tmp_path / "whole") == 0

    write = Path.write_bytes

    def full(self, content):
        if self.suffix == ".safetensors":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert generate(tmp_path / "run") == 1
    error = capsys.readouterr().err
    assert re.fullmatch(r"patchmosaic: cannot write .*: No space left on device\n", error)
    monkeypatch.undo()
    assert generate(tmp_path / "run", "--resume") == 0
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


@pytest.mark.parametrize("ask", [lambda *_: bytearray(1 << 55), lambda *_: torch.empty(1 << 50)])
def test_too_little_memory_is_one_line(tmp_path, monkeypatch, capsys, ask):
    monkeypatch.setattr(ScoreMachine, "denoise", ask)
    assert generate(tmp_path / "run") == 1
    assert (
        capsys.readouterr().err
        == "patchmosaic: out of memory; ask for less (see patchmosaic generate --help)\n"
    )


def test_a_damaged_checkpoint_is_named(tmp_path, monkeypatch, capsys):
    interrupt_after(monkeypatch, 7)
    assert generate(tmp_path / "run") == 130
    monkeypatch.undo()
    state = next((tmp_path / "run" / "unfinished").glob("*.state"))
    state.write_bytes(state.read_bytes()[:40])
    assert generate(tmp_path / "run", "--resume") == 1
    assert state.name in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_output_that_cannot_be_written_is_one_line(tmp_path):
    command = [sys.executable, "-m", "patchmosaic", "generate", *SMALL, "--out", str(tmp_path)]
    with open("/dev/full", "w") as full:
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == "patchmosaic: No space left on device"
    assert "Traceback" not in run.stderr


def test_help_shows_every_command_and_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for command in ("generate", "compare", "calibrate", "train", "reproduce", "bench"):
        assert f"    {command} " in text
    assert "--resume" in text
    assert max(map(len, text.splitlines())) <= 120


def imported(code):
    """Outermost packages that a fresh Python has imported after some code."""
    code += "\nimport sys; print(*{name.split('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split())


def test_help_and_import_do_not_wait_for_torch():
    """Counted in modules, which a loaded machine cannot blur."""
    code = "import patchmosaic.cli\ntry: patchmosaic.cli.main(['--help'])\nexcept SystemExit: pass"
    assert imported(code).isdisjoint({"torch", "numpy", "matplotlib"})


def test_public_names_and_the_help_of_commands_wait_only_for_torch():
    code = """
import patchmosaic.cli
for name in patchmosaic.__all__:
    getattr(patchmosaic, name)
for command in patchmosaic.cli._COMMANDS:
    try:
        patchmosaic.cli.main([command, "--help"])
    except SystemExit:
        pass
"""
    added = imported(code) - imported("import torch")
    assert "patchmosaic" in added
    assert added.isdisjoint(
        {"diffusers", "matplotlib", "pandas", "PIL", "pyarrow", "scipy", "skimage", "sklearn"}
    )


def test_ctrl_c_while_torch_is_imported_is_one_line(monkeypatch, capsys):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr("patchmosaic.cli.import_module", interrupted)
    assert main(["generate"]) == 130
    assert capsys.readouterr().err == "\npatchmosaic: stopped before anything was kept\n"
