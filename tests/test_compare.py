"""The same noise to a network and to machines: from Python, and as a command."""

import csv
import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from PIL import Image

import patchmosaic as pm
from mistakes import assert_one_clear_line
from patchmosaic import records
from patchmosaic.cli import main
from patchmosaic.comparison.compare import Flow
from patchmosaic.comparison.pictures import shown
from patchmosaic.data import DataSettings
from patchmosaic.explanation.subject import load_subject
from patchmosaic.nets import Network, load_network, save_network
from patchmosaic.nets.resnet import ResNet
from patchmosaic.sampling import reverse_flow

SMALL = ["--limit", "40", "--count", "7", "--batch", "3", "--network-steps", "6,3", "--steps", "4"]
RESULTS = [
    "pairs.png", "per_seed.csv", "report.html", "run.json", "samples.safetensors", "scatter.png", "summary.json"
]  # fmt: skip


def make_network(folder, seed=0, **choices):
    """A network with random weights in a folder like that of a training on digits."""
    torch.manual_seed(seed)
    model = ResNet(**{"sample_size": 8, "in_channels": 1, "width": 8, "layers": 1, **choices})
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    save_network(model, folder)
    records.write_json(folder / "run.json", {"config": {"data": asdict(DataSettings())}})
    return folder


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nets")
    make_network(folder / "plain")
    make_network(folder / "classes", padding="circular", num_class_embeds=10)
    make_network(folder / "colour", in_channels=3)
    make_network(folder / "unknown")
    (folder / "unknown" / "run.json").unlink()
    make_network(folder / "large", sample_size=16)
    return folder


def compare(nets, folder, *arguments, network="plain"):
    return main(["compare", "--network", str(nets / network), "--out", str(folder), *SMALL, *arguments])


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def machines(count=40):
    few = pm.load_dataset("digits", limit=count)
    scales = pm.presets.rule_of_thumb(8)
    return {
        "is": pm.presets.ideal(few.images),
        "ls": pm.presets.local(few.images, scales),
        "bbels": pm.presets.boundary_broken(few.images, scales),
    }


def noise_of(seeds):
    return pm.draw_noise(pm.generators(seeds), (1, 8, 8))


def test_a_machine_predicts_itself():
    local = machines()["bbels"]
    result = pm.compare(local, {**machines(), "same": local}, noise_of(range(4)), network_steps=(5,), steps=5)
    found = result.metrics[5]["same"]
    assert torch.equal(result.network[5], result.machines["same"])
    torch.testing.assert_close(found["r"], torch.ones(4, dtype=torch.float64))
    assert bool((found["R2"] == 1).all())
    assert bool((found["mse"] == 0).all())
    assert result.beats_is(5, "same") == 1
    assert result.beats_is(5, "is") is None
    assert result.summary()["machines"]["same"]["R2"]["median"] == 1


LINEAR = pm.ArraySchedule((1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0))


def test_a_machine_predicts_itself_on_any_schedule():
    """Machines on another schedule than the network's would fall short of r = 1 by the difference."""
    local = machines()["bbels"]
    given = pm.compare(
        local, {"same": local}, noise_of(range(4)), network_steps=(6,), steps=6, schedule=LINEAR
    )
    local.schedule = LINEAR
    own = pm.compare(local, {"same": local}, noise_of(range(4)), network_steps=(6,), steps=6)
    expected = pm.sample(local, noise_of(range(4)), 6, LINEAR).images
    for result in (given, own):
        assert torch.equal(result.machines["same"], expected)
        assert result.metrics[6]["same"]["r"].min() > 1 - 1e-12


def test_the_command_draws_machines_on_the_networks_schedule(nets, tmp_path):
    shutil.copytree(nets / "plain", tmp_path / "net")
    DDPMScheduler().save_pretrained(tmp_path / "net")
    for start in ("aligned", "authors"):
        assert compare(tmp_path, tmp_path / start, "--start", start, network="net") == 0
        drawn = records.read_tensors(tmp_path / start / "samples.safetensors")[0]
        schedule = load_network(tmp_path / "net").schedule
        expected = pm.sample(machines()["bbels"], noise_of(range(7)), 4, schedule, start=start).images
        assert torch.equal(drawn["bbels"], expected)
        subject = load_subject(tmp_path / start, 1, "bbels", 2**26, "cpu")
        explained = list(reverse_flow(subject.machine, noise_of([1]), subject.times, subject.schedule))[-1]
        torch.testing.assert_close(explained.prediction, expected[1:2], rtol=0, atol=1e-6)


def test_python_gives_each_its_own_flow(nets):
    network = load_network(nets / "plain")
    noise = noise_of(range(3))
    result = pm.compare(network, machines(), noise, network_steps=(6, 3), steps=4, start="authors")
    for steps in (6, 3):
        expected = pm.sample(network, noise, steps, network.schedule).images
        assert torch.equal(result.network[steps], expected)
    for name, machine in machines().items():
        expected = pm.sample(machine, noise, 4, network.schedule, start="authors").images
        assert torch.equal(result.machines[name], expected)
    assert result.main == 6
    assert result.best in ("ls", "bbels")
    with pytest.raises(pm.InputError, match="at least one machine"):
        pm.compare(network, {}, noise)


def test_a_tie_beats_nobody():
    network, drawn = noise_of(range(4)), noise_of(range(4, 8))
    result = pm.Comparison({1: network}, {"is": drawn, "ls": drawn, "els": network}, 1)
    assert (result.beats_is(1, "ls"), result.beats_is(1, "els")) == (0, 1)
    assert pm.Comparison({1: network}, {"ls": drawn}, 1).beats_is(1, "ls") is None


def test_shown_seeds_run_from_best_to_worst():
    generator = torch.Generator().manual_seed(0)
    network = torch.randn((50, 1, 4, 4), generator=generator)
    noisy = network + torch.randn((50, 1, 4, 4), generator=generator)
    result = pm.Comparison({1: network}, {"ls": noisy, "is": -network}, 1)
    r = result.metrics[1]["ls"]["r"]
    chosen = r[shown(result)]
    assert len(chosen) == 12
    assert chosen[0] == r.max()
    assert chosen[-1] == r.min()
    assert bool((chosen.diff() <= 0).all())


def test_a_run_folder_holds_the_comparison(nets, tmp_path, capsys):
    assert compare(nets, tmp_path / "run") == 0
    said = capsys.readouterr().out
    assert sorted(contents(tmp_path / "run")) == RESULTS
    assert "no windows calibrated on this network for ls, bbels" in said
    for text in ("network in 6 steps", "network in 3 steps", "IS", "bbELS", "report.html"):
        assert text in said
    tensors, _ = records.read_tensors(tmp_path / "run" / "samples.safetensors")
    assert tensors["seeds"].tolist() == list(range(7))
    expected = pm.compare(
        load_network(nets / "plain"), machines(), noise_of(range(7)), network_steps=(6, 3), steps=4
    )
    for name, images in expected.machines.items():
        assert torch.equal(tensors[name], images)  # machines do not depend on the batch at all
    for steps, images in expected.network.items():
        torch.testing.assert_close(tensors[f"network_{steps}"], images, rtol=1e-3, atol=1e-3)
    record = records.read_json(tmp_path / "run" / "run.json")
    assert record["network"]["fingerprint"] == load_network(nets / "plain").fingerprint
    assert record["data"]["fingerprint"] == pm.load_dataset("digits", limit=40).fingerprint
    assert record["locality"]["ls"]["windows"] == list(pm.presets.rule_of_thumb(8).windows)
    assert record["locality"]["is"]["windows"] is None
    for name in ("pairs.png", "scatter.png"):
        with Image.open(tmp_path / "run" / name) as picture:
            assert picture.width > 700


def by_hand(reference, images):
    """r, r2 and R2 of one pair in numpy, apart from the library."""
    a, b = np.float64(reference).ravel(), np.float64(images).ravel()
    r = np.corrcoef(a, b)[0, 1]
    return r, r**2, 1 - ((a - b) ** 2).sum() / ((a - a.mean()) ** 2).sum()


def test_summary_csv_and_pictures_agree(nets, tmp_path):
    assert compare(nets, tmp_path / "run", "--seeds", "5,2,11,30") == 0
    summary = records.read_json(tmp_path / "run" / "summary.json")
    assert sorted(summary) == ["also", "machines", "network_steps", "seeds", "theory_steps"]
    assert (summary["seeds"], summary["network_steps"], summary["theory_steps"]) == (4, 6, 4)
    assert [sorted(one) for one in summary["also"]] == [["machines", "network_steps"]]
    tensors, _ = records.read_tensors(tmp_path / "run" / "samples.safetensors")
    with (tmp_path / "run" / "per_seed.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "seed", "label", "network_steps", "machine", "r", "r2", "R2", "cosine", "mse"
    ]  # fmt: skip
    assert len(rows) == 4 * 3 * 2
    for row in rows:
        i = [5, 2, 11, 30].index(int(row["seed"]))
        expected = by_hand(tensors[f"network_{row['network_steps']}"][i], tensors[row["machine"]][i])
        assert [float(row[name]) for name in ("r", "r2", "R2")] == pytest.approx(expected, rel=1e-9, abs=1e-9)
    for one in (summary, *summary["also"]):
        mine = [row for row in rows if int(row["network_steps"]) == one["network_steps"]]
        ideal = [float(row["r"]) for row in mine if row["machine"] == "is"]
        for name, found in one["machines"].items():
            values = {
                k: np.array([float(q[k]) for q in mine if q["machine"] == name]) for k in ("r", "r2", "R2")
            }
            for metric, numbers in values.items():
                assert sorted(found[metric]) == ["mean", "median", "quantiles"]
                assert found[metric]["median"] == pytest.approx(np.median(numbers))
                assert found[metric]["mean"] == pytest.approx(numbers.mean())
                assert found[metric]["quantiles"]["0.05"] == pytest.approx(np.quantile(numbers, 0.05))
            share = None if name == "is" else float(np.mean(values["r"] > ideal))
            assert found["beats_is"] == share


def test_same_command_same_bytes_and_seeds_stand_alone(nets, tmp_path):
    assert compare(nets, tmp_path / "a") == 0
    first = contents(tmp_path / "a")
    assert compare(nets, tmp_path / "b") == 0
    assert first == contents(tmp_path / "b")
    assert compare(nets, tmp_path / "a", "--overwrite") == 0
    assert first == contents(tmp_path / "a")
    assert compare(nets, tmp_path / "one", "--seeds", "4") == 0
    whole, one = (records.read_tensors(tmp_path / name / "samples.safetensors")[0] for name in ("a", "one"))
    assert torch.equal(whole["bbels"][4:5], one["bbels"])
    torch.testing.assert_close(whole["network_6"][4:5], one["network_6"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("batches", [0, 1, 4, 13])
def test_ctrl_c_keeps_batches_and_resume_gives_the_same_bytes(nets, tmp_path, monkeypatch, capsys, batches):
    assert compare(nets, tmp_path / "whole") == 0
    draw, drawn = Flow.draw, []

    def interrupted(self, *arguments):
        if len(drawn) == batches:
            raise KeyboardInterrupt
        drawn.append(1)
        return draw(self, *arguments)

    monkeypatch.setattr(Flow, "draw", interrupted)
    assert compare(nets, tmp_path / "cut") == 130
    assert len(list((tmp_path / "cut").glob("unfinished/*.safetensors"))) == batches
    again = []
    monkeypatch.setattr(Flow, "draw", lambda *arguments: again.append(1) or draw(*arguments))
    capsys.readouterr()
    assert compare(nets, tmp_path / "cut") == 1
    assert "unfinished run: --resume it" in capsys.readouterr().err
    assert compare(nets, tmp_path / "cut", "--resume") == 0
    assert len(again) == 15 - batches  # five who draw, three batches each
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_repeating_a_complete_run_only_prints_it(nets, tmp_path, monkeypatch, capsys):
    assert compare(nets, tmp_path / "run") == 0
    table = capsys.readouterr().out.split("\n\n")[1]
    monkeypatch.setattr(Flow, "draw", None)
    assert compare(nets, tmp_path / "run") == 0
    said = capsys.readouterr().out
    assert said.startswith("already complete")
    assert said.split("\n\n")[1] == table


def test_a_conditional_network_draws_every_class_in_turn(nets, tmp_path):
    assert compare(nets, tmp_path / "run", "--classes", "3,1,8", network="classes") == 0
    tensors, _ = records.read_tensors(tmp_path / "run" / "samples.safetensors")
    assert tensors["labels"].tolist() == [1, 3, 8, 1, 3, 8, 1]
    assert {"is", "ls", "els"} <= set(tensors)  # it wraps around
    few = pm.load_dataset("digits", limit=40, classes=[3, 1, 8])
    ls = pm.presets.local(few.images, pm.presets.rule_of_thumb(8), padding="circular", labels=few.labels)
    schedule = load_network(nets / "classes").schedule
    expected = pm.sample(ls, noise_of(range(7)), 4, schedule, labels=tensors["labels"]).images
    assert torch.equal(tensors["ls"], expected)
    assert "class 3" in (tmp_path / "run" / "report.html").read_text("utf-8")
    assert compare(nets, tmp_path / "given", "--labels", "7,2", network="classes") == 0
    tensors, _ = records.read_tensors(tmp_path / "given" / "samples.safetensors")
    assert tensors["labels"].tolist() == [7, 2, 7, 2, 7, 2, 7]


def test_windows_come_from_the_network_unless_given(nets, tmp_path):
    shutil.copytree(nets / "plain", tmp_path / "net")
    five = pm.LocalitySchedule([0.5], [5])
    five.save(tmp_path / "net" / "scales" / "ls.json")

    def windows(name, *arguments):
        assert compare(tmp_path, tmp_path / name, "--machines", "ls", *arguments, network="net") == 0
        return records.read_json(tmp_path / name / "run.json")["locality"]["ls"]["windows"]

    assert windows("own") == [5]
    assert windows("window", "--window", "3") == 3
    pm.LocalitySchedule([0.5], [7]).save(tmp_path / "other" / "ls.json")
    assert windows("folder", "--scales", str(tmp_path / "other")) == [7]
    assert windows("file", "--scales", str(tmp_path / "other" / "ls.json")) == [7]
    published = list(pm.presets.PUBLISHED_SCALES["mnist-resnet"])
    assert windows("published", "--scales", "mnist-resnet") == published
    assert "scatter.png" not in contents(tmp_path / "own")  # nothing to hold it against


def test_the_report_fetches_nothing(nets, tmp_path):
    assert compare(nets, tmp_path / "run") == 0
    text = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert not re.search(r"https?:|<script|<link|@import|url\(|<iframe", text)
    assert set(re.findall(r'src="(.{22})', text)) == {"data:image/png;base64,"}
    summary = records.read_json(tmp_path / "run" / "summary.json")
    for one in (summary, *summary["also"]):
        for found in one["machines"].values():
            assert f"<td>{found['r']['median']:.3f}</td>" in text
    for i in range(7):
        assert f"seed {i}" in text


def test_titles_say_trained_only_on_the_very_images(nets, tmp_path):
    shutil.copytree(nets / "plain", tmp_path / "net")
    record = {"data": {"fingerprint": pm.load_dataset("digits", limit=40).fingerprint}}
    records.write_json(tmp_path / "net" / "run.json", record)
    for limit, names in (
        ("40", "a network trained on digits and to theory"),
        ("39", "a network and to theory on digits"),
    ):
        given = ("--data", "digits", "--limit", limit, "--count", "2")
        assert compare(tmp_path, tmp_path / limit, *given, network="net") == 0
        assert f"The same noise, to {names}<" in (tmp_path / limit / "report.html").read_text("utf-8")


def test_names_of_others_cannot_break_the_report(nets, tmp_path, digits):
    odd = tmp_path / "a & <b>.npz"
    np.savez(odd, images=digits.images[:40].numpy())
    assert compare(nets, tmp_path / "run", "--data", str(odd)) == 0
    text = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "&lt;b&gt;" in text
    assert "<b>" not in text


MISTAKES = [
    ("plain", ["--network", "NOWHERE"], "holds no network"),
    ("plain", ["--machines", "is,nonsense"], "machines must be among is, es, ls, els, bbels"),
    ("plain", ["--machines", "is,is"], "machine is is given twice"),
    ("plain", ["--seeds", "1,1"], "seed 1 is given twice"),
    ("plain", ["--seeds", "-1"], "number from 0"),
    ("plain", ["--count", "0"], "--count must be a whole number"),
    ("plain", ["--batch", "0"], "batch must be a whole number"),
    ("plain", ["--network-steps", "150,0"], "network steps must be a whole number"),
    ("plain", ["--network-steps", "20,20"], "number of network steps 20 is given twice"),
    ("plain", ["--network-steps", "many"], "not a list of integers"),
    ("plain", ["--steps", "0"], "steps must be a whole number"),
    ("plain", ["--start", "late"], "start must be"),
    ("plain", ["--start", "authors", "--steps", "1"], "needs 2 or more"),
    ("plain", ["--window", "4"], "must be odd"),
    ("plain", ["--window", "3", "--scales", "mnist-resnet"], "not both"),
    ("plain", ["--window", "3", "--machines", "is,es"], "is and es see the whole image"),
    ("plain", ["--scales", "nonsense"], "no scales called 'nonsense'"),
    ("plain", ["--scales", "EMPTY"], "ls.json"),
    ("plain", ["--labels", "3"], "has no classes: leave out --labels"),
    ("classes", ["--labels", "10"], "labels must be 0 to 9"),
    ("classes", ["--labels", "3", "--classes", "1"], "no training image has label 3"),
    ("classes", ["--data", "two-tone", "--size", "8"], "draws classes and two-tone has none"),
    ("colour", [], "draws 3 channels and digits has 1: use --channels 3"),
    ("plain", ["--channels", "3"], "draws 1 channels and digits has 3: use --channels 1"),
    ("large", [], "draws 16 x 16 pixels and digits has 8 x 8: use --size 16"),
    ("unknown", [], "does not say what it was trained on: give --data"),
    ("plain", ["--data", "nowhere.parquet"], "no data set or existing path"),
    ("plain", ["--device", "nonsense"], "not available here"),
    ("plain", ["--resume"], "nothing to resume"),
]


@pytest.mark.parametrize(("network", "arguments", "hint"), MISTAKES)
def test_mistakes_take_one_clear_line(nets, tmp_path, capsys, network, arguments, hint):
    (tmp_path / "empty").mkdir()
    places = {"NOWHERE": str(tmp_path / "nowhere"), "EMPTY": str(tmp_path / "empty")}
    given = [places.get(argument, argument) for argument in arguments]
    small = SMALL[2:] if "--classes" in arguments else SMALL
    command = ["compare", "--network", str(nets / network), "--out", str(tmp_path / "run"), *small, *given]
    assert_one_clear_line(tmp_path, capsys, command, hint)


def test_damaged_networks_take_one_clear_line(nets, tmp_path, capsys):
    def damaged(name, change):
        shutil.copytree(nets / "plain", tmp_path / name)
        change(tmp_path / name)
        return ["compare", "--network", str(tmp_path / name), "--out", str(tmp_path / "run"), *SMALL]

    def cut(folder):
        weights = next(folder.glob("*.safetensors"))
        weights.write_bytes(weights.read_bytes()[:-100])

    def poison(folder):
        model = load_network(folder).model
        torch.nn.init.constant_(model.up.weight, torch.nan)
        save_network(model, folder)

    assert_one_clear_line(tmp_path, capsys, damaged("cut", cut), "cannot load the network")
    assert_one_clear_line(tmp_path, capsys, damaged("nan", poison), "returned NaN or infinity")


def test_other_settings_do_not_mix(nets, tmp_path, capsys):
    assert compare(nets, tmp_path / "run") == 0
    before = contents(tmp_path / "run")
    assert compare(nets, tmp_path / "run", "--steps", "5") == 1
    assert "steps: 4 there, 5 here" in capsys.readouterr().err
    make_network(tmp_path / "plain", seed=1)
    assert compare(tmp_path, tmp_path / "run", "--machines", "is,ls,bbels") == 1
    assert contents(tmp_path / "run") == before


def test_json_is_strict(nets, tmp_path):
    """A network that draws one grey has no variance: nothing is NaN."""

    def refuse(name):
        raise AssertionError(name)

    grey = Network(load_network(nets / "plain").model, predicts="x0")
    for weight in grey.model.parameters():
        torch.nn.init.zeros_(weight)
    result = pm.compare(grey, machines(), noise_of(range(3)), network_steps=(2,), steps=2)
    assert result.summary()["machines"]["is"]["R2"]["median"] == 0
    json.loads(json.dumps(result.summary()), parse_constant=refuse)


@pytest.mark.slow
def test_theory_predicts_the_bundled_network(tmp_path):
    """The headline: what ``patchmosaic compare`` says without arguments, over 100 seeds."""
    assert main(["compare", "--out", str(tmp_path / "run")]) == 0
    found = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (found["seeds"], found["network_steps"], found["theory_steps"]) == (100, 150, 20)
    (also,) = found["also"]
    assert also["network_steps"] == 20
    for machines, least in ((found["machines"], 0.95), (also["machines"], 0.92)):
        medians = {name: values["r"]["median"] for name, values in machines.items()}
        assert medians["bbels"] >= least
        assert medians["is"] < medians["ls"] < medians["bbels"]
        assert machines["bbels"]["beats_is"] >= 0.9
