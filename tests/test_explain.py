"""The command that explains a picture of a run."""

import csv
import json
import shutil
from html import escape

import pytest
import torch
from safetensors.torch import load_file, save_file

import patchmosaic as pm
from mistakes import assert_one_clear_line
from patchmosaic.cli import main
from patchmosaic.explanation.pictures import source_map, used
from patchmosaic.viz import to_pil


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A drawn run, and a comparison with the bundled network."""
    folder = tmp_path_factory.mktemp("runs")
    drawn = [
        "generate",
        "--limit",
        "80",
        "--count",
        "2",
        "--steps",
        "4",
        "--labels",
        "3,5",
        "--out",
        str(folder / "drawn"),
    ]
    assert main(drawn) == 0
    compared = ["compare", "--limit", "60", "--count", "2", "--network-steps", "2", "--steps", "3"]
    assert main([*compared, "--machines", "is,ls,bbels", "--out", str(folder / "compared")]) == 0
    return folder


def test_a_drawn_picture_is_explained(runs, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["explain", str(runs / "drawn"), "--sample", "1", "--out", str(out), "--sources", "3"]) == 0
    assert "fragments from" in capsys.readouterr().out
    names = {path.name for path in out.iterdir()}
    assert names == {
        *("mosaic.png", "steps.png", "belief.png", "consistency.png", "fragments.csv", "explain.html"),
        *("provenance.safetensors", "summary.json", "run.json"),
    }
    tensors = load_file(out / "provenance.safetensors")
    assert tensors["weight"].shape == (4, 3, 8, 8)
    assert ((tensors["weight"].sum(1) <= 1 + 1e-6) & (tensors["weight"].sum(1) > 0)).all()
    data = pm.load_dataset("digits", limit=80)
    named = tensors["image"][tensors["image"] >= 0]
    assert set(named.tolist()) <= set(data.indices[data.labels == 5].tolist())
    assert float(tensors["by_image"].sum()) == pytest.approx(64, rel=1e-6)
    summary = json.loads((out / "summary.json").read_text())["bbels"]
    with (out / "fragments.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == summary["fragments"]
    sizes = [int(row["pixels"]) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) == round(64 * (1 - summary["ambiguous_share"]))
    assert {row["class"] for row in rows} == {"5"}
    page = (out / "explain.html").read_text()
    assert 'src="data:image/png;base64,' in page
    assert "<dt>machine</dt><dd>bbels</dd>" in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_explained_flow_is_the_drawn_one(runs, monkeypatch, tmp_path):
    """The last prediction is the picture of the run, to the bit."""
    from patchmosaic.explanation import Run, load_subject

    subject = load_subject(runs / "drawn", 1, None, 1 << 29, "cpu")
    run = Run(tmp_path / "out", runs / "drawn", 1, subject, 1)
    explanation = run.trace()
    images = load_file(runs / "drawn" / "samples.safetensors")["images"]
    assert torch.equal(explanation.images["bbels"], images[1:])
    assert [step.time for step in explanation.steps] == [1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("machine", ["is", "ls", None])
def test_a_comparison_explains_the_network_too(runs, tmp_path, machine):
    out = tmp_path / "out"
    chosen = ["--machine", machine] if machine else []
    assert main(["explain", str(runs / "compared"), "--out", str(out), *chosen]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary) == sorted(["Network, 2 steps", machine or "bbels"])
    if machine == "is":
        assert summary["is"]["sources"] == summary["is"]["fragments"] == 1
        assert summary["is"]["largest_fragment"] == 64
        page = (out / "explain.html").read_text()
        assert "64 pixels, 1 fragment from 1 training image of" in page


def test_an_interrupted_explanation_ends_in_the_same_bytes(runs, tmp_path, monkeypatch):
    from patchmosaic.explanation import run

    def files(folder):
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    assert main(["explain", str(runs / "drawn"), "--out", str(tmp_path / "whole")]) == 0
    traced = run.provenance
    calls = []

    def stopped(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return traced(*args)

    monkeypatch.setattr(run, "provenance", stopped)
    again = ["explain", str(runs / "drawn"), "--out", str(tmp_path / "cut")]
    assert main(again) == 130
    assert main(again) == 1
    assert main([*again, "--resume"]) == 0
    assert len(calls) == 3 + 3
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], "holds no run"),
        (["drawn", "--sample", "2"], "samples 0 to 1"),
        (["drawn", "--machine", "ls"], "--machine is for runs of patchmosaic compare"),
        (["compared", "--machine", "es"], "--machine must be one of is, ls, bbels"),
        (["drawn", "--sources", "0"], "--sources must be a whole number"),
    ],
)
def test_mistakes_take_one_line(runs, tmp_path, capsys, arguments, told):
    out = tmp_path / "out"
    assert main(["explain", str(runs / arguments[0]), *arguments[1:], "--out", str(out)]) == 1
    assert not out.exists()
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("patchmosaic: ")
    assert told in message


@pytest.mark.parametrize(
    ("section", "changes"),
    [
        ("config", {"steps": "many"}),
        ("config", {"seeds": 5}),
        ("config", {"labels": "x"}),
        ("config", {"machines": [], "network_steps": [2]}),
        ("config", {"colour": "red"}),
        ("data", {"fingerprint": None}),
    ],
)
def test_a_damaged_record_takes_one_line(runs, tmp_path, capsys, section, changes):
    run = tmp_path / "run"
    shutil.copytree(runs / "drawn", run)
    record = json.loads((run / "run.json").read_text())
    record[section] |= changes
    (run / "run.json").write_text(json.dumps(record))
    hint = f"{run / 'run.json'} cannot be read"
    assert_one_clear_line(tmp_path, capsys, ["explain", str(run), "--out", str(tmp_path / "out")], hint)


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda images: images[:1].clone(), "not those of its run.json"),
        (lambda images: images[..., :4].contiguous(), "not those of its run.json"),
        (lambda images: images * torch.nan, "not those of its run.json"),
        (lambda images: images.long(), "not those of its run.json"),
        (None, "holds no tensor called network_2"),
    ],
)
def test_damaged_pictures_take_one_line(runs, tmp_path, capsys, change, hint):
    run = tmp_path / "run"
    shutil.copytree(runs / "compared", run)
    tensors = load_file(run / "samples.safetensors")
    images = tensors.pop("network_2")
    save_file({**tensors, **({"network_2": change(images)} if change else {})}, run / "samples.safetensors")
    assert_one_clear_line(tmp_path, capsys, ["explain", str(run), "--out", str(tmp_path / "out")], hint)


def test_a_class_that_is_not_there_takes_one_line(runs, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(runs / "compared", run)
    record = json.loads((run / "run.json").read_text())
    record["config"]["labels"] = [99]
    (run / "run.json").write_text(json.dumps(record))
    command = ["explain", str(run), "--out", str(tmp_path / "out")]
    assert_one_clear_line(tmp_path, capsys, command, "no training image has label 99")


def test_other_training_images_are_refused(tmp_path, capsys):
    import numpy as np

    pixels = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 1), dtype=np.uint8)
    np.save(tmp_path / "data.npy", pixels)
    command = [
        "--data",
        str(tmp_path / "data.npy"),
        "--count",
        "1",
        "--steps",
        "2",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(["generate", *command]) == 0
    pixels[0, 0, 0] ^= 1
    np.save(tmp_path / "data.npy", pixels)
    assert main(["explain", str(tmp_path / "run")]) == 1
    assert "no longer holds the images" in capsys.readouterr().err


def test_source_files_are_named(tmp_path):
    data = pm.load_dataset("digits", limit=12)
    for i, picture in enumerate(data.images):
        path = tmp_path / "digits" / f"Nº {int(data.labels[i])}" / f"<b> {i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        to_pil(picture).save(path)
    some = ["--data", str(tmp_path / "digits"), "--channels", "1", "--classes", "Nº 1,Nº 3"]
    drawn = [*some, "--machine", "is", "--count", "2", "--steps", "3", "--out", str(tmp_path / "run")]
    assert main(["generate", *drawn]) == 0
    named = json.loads((tmp_path / "run" / "metrics.json").read_text())["nearest_file"]
    rows = load_file(tmp_path / "run" / "samples.safetensors")["nearest"]
    assert named == [pm.load_dataset(tmp_path / "digits").names[row] for row in rows]
    assert main(["explain", str(tmp_path / "run"), "--sample", "1"]) == 0
    out = tmp_path / "run" / "explain-1"
    with (out / "fragments.csv").open(encoding="utf-8") as file:
        found = [(line["training_image"], line["source_file"]) for line in csv.DictReader(file)]
    assert found == [(str(int(rows[1])), named[1])]
    assert (
        json.loads((out / "summary.json").read_text())["is"]["largest_source"][0]["source_file"] == named[1]
    )
    page = (out / "explain.html").read_text(encoding="utf-8")
    assert page.count(f'{rows[1]} <span class="file">{escape(named[1])}</span>') == 2
    assert "<b>" not in page


def test_what_was_used_is_lit():
    images = torch.randperm(3 * 36, generator=torch.Generator().manual_seed(0)).view(3, 1, 6, 6) / 54 - 1
    picture = images[2:].clone()
    picture[..., :2, :3] = images[1, :, 4:, 1:4]
    found = pm.mosaic(pm.provenance(pm.presets.boundary_broken(images, 1), picture, 1.0))
    lit = used(found, 1, 0)
    assert lit.sum() == 6
    assert lit[4:, 1:4].all()
    assert used(found, 2, 0).sum() == 30
    colours = source_map(found, found)
    assert len({tuple(colour) for colour in colours.reshape(-1, 3).tolist()}) == 2
    assert (colours[:2, :3] == colours[0, 0]).all()
