"""What is said of damaged files of an interrupted run, by every command that keeps one; nothing is lost by it."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from patchmosaic import records
from patchmosaic.cli import main

BATCHES = ["--limit", "60", "--count", "4", "--batch", "2"]
CHECKED = {".json", ".safetensors"}  # by what they hold
COMMANDS = {
    "generate": ["generate", *BATCHES, "--steps", "2"],
    "compare": ["compare", *BATCHES, "--network-steps", "2", "--steps", "2"],
    "calibrate": ["calibrate", *BATCHES, "--steps", "2", "--windows", "3,5"],
    "explain": ["explain", "{}/drawn"],
    "audit": ["audit", "{}/drawn", "--limit", "60"],
}


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """Runs of every command, stopped after the second file that they keep to go on from."""
    folder = tmp_path_factory.mktemp("runs")
    assert (
        main(["generate", "--limit", "60", "--count", "2", "--steps", "2", "--out", f"{folder}/drawn"]) == 0
    )
    write = records.write
    for name, command in COMMANDS.items():
        kept = []

        def stopping(path, save, kept=kept):
            write(path, save)
            if Path(path).parent.name == records.UNFINISHED:
                kept.append(path)
                if len(kept) == 2:
                    raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(records, "write", stopping)
            arguments = [part.format(folder) for part in command]
            assert main([*arguments, "--out", str(folder / name)]) == 130
    return folder


def resume(interrupted, out, name, option="--resume"):
    return main([*(part.format(interrupted) for part in COMMANDS[name]), "--out", str(out), option])


def one_line(capsys):
    error = capsys.readouterr().err.strip()
    assert error.startswith("patchmosaic: ")
    assert len(error.splitlines()) == 1, error
    return error


@pytest.mark.parametrize("name", COMMANDS)
def test_a_damaged_part_is_named_and_made_again(interrupted, tmp_path, capsys, name):
    out = tmp_path / "run"
    shutil.copytree(interrupted / name, out)
    part = min((out / records.UNFINISHED).iterdir())
    content = part.read_bytes()
    capsys.readouterr()
    part.write_bytes(content[:50])
    assert resume(interrupted, out, name) == 1
    assert f"{part} cannot be read" in one_line(capsys)
    records.write_tensors(part, {"other": torch.zeros(2)})
    assert resume(interrupted, out, name) == 1
    error = one_line(capsys)
    assert f"{part} holds no tensor called" in error
    assert "delete it, and --resume makes it again" in error
    part.unlink()
    assert resume(interrupted, out, name) == 0


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"config": 3}'])
def test_a_damaged_record_is_named_and_overwritten(interrupted, tmp_path, capsys, content):
    out = tmp_path / "run"
    shutil.copytree(interrupted / "generate", out)
    (out / "run.json").write_text(content)
    before = sorted(out.rglob("*"))
    capsys.readouterr()
    assert resume(interrupted, out, "generate") == 1
    error = one_line(capsys)
    assert f"{out / 'run.json'} cannot be read" in error
    assert "--overwrite" in error
    assert sorted(out.rglob("*")) == before
    assert resume(interrupted, out, "generate", "--overwrite") == 0


@pytest.mark.parametrize("named", [3, ["..", ".", "", "../notes.txt", "notes.txt/..", 3, "old.png"]])
def test_overwriting_removes_results_in_the_folder_alone(interrupted, tmp_path, named):
    out = tmp_path / "run"
    shutil.copytree(interrupted / "generate", out)
    (out / "run.json").write_text(json.dumps({"made_by": {"command": "generate", "results": named}}))
    for path in (tmp_path / "notes.txt", out / "notes.txt", out / "old.png"):
        path.write_text("mine")
    assert resume(interrupted, out, "generate", "--overwrite") == 0
    assert (tmp_path / "notes.txt").exists()
    assert (out / "notes.txt").exists()
    assert (out / "old.png").exists() == (named == 3)


RUNS = {
    **COMMANDS,
    "train": ["train", "--limit", "16", "--steps", "2", "--width", "4", "--layers", "1", "--batch", "4"],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A complete run of every command."""
    folder = tmp_path_factory.mktemp("finished")
    drawn = ["generate", "--limit", "60", "--count", "2", "--steps", "2", "--out", f"{folder}/drawn"]
    assert main(drawn) == 0
    for name, command in RUNS.items():
        assert main([*(part.format(folder) for part in command), "--out", str(folder / name)]) == 0
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_lost_a_result_is_not_called_complete(finished, tmp_path, capsys, name):
    command = [part.format(finished) for part in RUNS[name]]
    whole = finished / name
    results = [path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.is_file()]
    kept_elsewhere = {"run.json", "scheduler_config.json"}  # not looked at
    for result in results:
        if result.name in kept_elsewhere or result.parts[0] == "samples":
            continue
        for damage in ("cut", "lost"):
            out = tmp_path / f"{result.name}-{damage}"
            shutil.copytree(whole, out)
            content = (out / result).read_bytes()
            (out / result).unlink()
            if damage == "cut":
                (out / result).write_bytes(content[: len(content) // 2 if result.suffix in CHECKED else 0])
            capsys.readouterr()
            status = main([*command, "--out", str(out)])
            assert status == 1, result
            assert str(out) in one_line(capsys)
            shutil.rmtree(out)
    assert main([*command, "--out", str(whole)]) == 0
    assert "already complete" in capsys.readouterr().out


def test_pictures_of_several_are_not_taken_for_those_of_one(finished, tmp_path, capsys):
    capsys.readouterr()
    assert main(["audit", str(finished / "compare"), "--out", str(tmp_path / "out")]) == 1
    assert "compares pictures of several" in one_line(capsys)
    (finished / "drawn" / "samples.safetensors").rename(finished / "moved")
    assert main(["audit", str(finished / "drawn"), "--out", str(tmp_path / "out")]) == 1
    (finished / "moved").rename(finished / "drawn" / "samples.safetensors")
    assert "samples.safetensors' is no file" in one_line(capsys)


@pytest.mark.parametrize("option", [[], ["--resume"], ["--overwrite"]])
def test_no_command_replaces_the_run_of_another(finished, capsys, option):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    for name in RUNS:
        other = "compare" if name == "generate" else "generate"
        capsys.readouterr()
        command = [part.format(finished) for part in RUNS[name]]
        assert main([*command, "--out", str(finished / other), *option]) == 1
        assert f"holds a run of {other}: choose another folder" in one_line(capsys)
    assert main(["explain", str(finished / "drawn"), "--out", str(finished / "drawn"), *option]) == 1
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("command", ["audit", "explain"])
def test_pictures_of_an_unfinished_run_are_not_taken(interrupted, tmp_path, capsys, command):
    capsys.readouterr()
    of = {"audit": "generate", "explain": "compare"}[command]
    assert main([command, str(interrupted / of), "--out", str(tmp_path / "out")]) == 1
    assert "unfinished run: finish it with --resume" in one_line(capsys)
