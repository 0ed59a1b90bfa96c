"""Calibration: planted schedules are found, medians are medians, and a run can be taken up again."""

import json

import pytest
import torch

import patchmosaic as pm
from mistakes import assert_one_clear_line
from patchmosaic.calibration import run
from patchmosaic.cli import main
from patchmosaic.explain import effective_width, machine_jacobian, network_jacobian, receptive_field
from patchmosaic.nets import load_network, save_network
from patchmosaic.nets.resnet import ResNet
from patchmosaic.presets import MACHINES

WINDOWS = (3, 5, 7)
PLANTED = pm.LocalitySchedule.from_steps([5, 3, 7, 5, 3, 7], pm.CosineSchedule())
RESULTS = ["bbels.json", "calibration.json", "calibration.png", "ls.json", "run.json"]


def noise(count, shape=(1, 8, 8)):
    return pm.draw_noise(pm.generators(range(count)), shape)


@pytest.mark.parametrize("kind", ["ls", "els", "bbels"])
def test_a_machine_taken_for_the_network_gives_its_own_windows_back(digits, kind):
    images, labels = digits.images[:200], digits.labels[:200]
    network = MACHINES[kind](images, PLANTED, labels=labels)
    machines = {"same": MACHINES[kind](images, 1, labels=labels), "other": pm.presets.local(images, 1)}
    found = pm.calibrate(network, {"same": machines["same"]}, noise(3), WINDOWS, 6)["same"]
    assert found.schedule == PLANTED
    assert found.quartiles == (PLANTED.windows, PLANTED.windows)
    torch.testing.assert_close(found.cosine, torch.ones(6, dtype=torch.float64))
    asked = torch.tensor([3, 0])
    both = pm.calibrate(
        network, {"same": machines["same"]}, noise(2), WINDOWS[::-1], 6, pm.CosineSchedule(), asked
    )
    assert both["same"].schedule == PLANTED
    assert both["same"].candidates == WINDOWS


def test_several_machines_are_each_compared_on_the_networks_way(digits):
    images = digits.images[:100]
    network = pm.presets.boundary_broken(images, PLANTED)
    machines = {"bbels": network, "ls": pm.presets.local(images, 1)}
    found = pm.calibrate(network, machines, noise(2), WINDOWS, 6)
    assert found["bbels"].schedule == PLANTED
    step = pm.sample(network, noise(2), 6, keep_trajectory=True)
    state, alpha_bar = step.states[2], step.alpha_bars[2]
    expected = torch.cosine_similarity(
        network.epsilon(state.double(), alpha_bar).flatten(1),
        pm.presets.local(images, 5).epsilon(state.double(), alpha_bar).flatten(1),
    )
    torch.testing.assert_close(found["ls"].cosines[3, :, 1], expected, rtol=0, atol=1e-5)


def test_a_network_is_followed_on_its_own_schedule(networks, digits):
    network = load_network(networks / "plain")
    machines = {"ls": pm.presets.local(digits.images[:20], 3)}
    for own in (pm.LinearSchedule(), pm.CosineSchedule()):
        network.schedule = own
        found = pm.calibrate(network, machines, noise(2), WINDOWS, 3)["ls"]
        given = pm.calibrate(network, machines, noise(2), WINDOWS, 3, own)["ls"]
        assert found.alpha_bars == tuple(map(own.alpha_bar, (1 / 3, 2 / 3, 1.0)))
        assert torch.equal(found.cosines, given.cosines)


def test_median_and_quartiles_are_over_trajectories():
    best = torch.tensor([[3, 3, 5, 7], [5, 3, 7, 7], [7, 7, 7, 3]])
    cosines = (torch.tensor(WINDOWS) == best[..., None]) * 0.5
    found = pm.Calibration((0.9, 0.5, 0.1), WINDOWS, cosines.double())
    assert found.best.tolist() == best.tolist()
    assert found.schedule == pm.LocalitySchedule([0.9, 0.5, 0.1], [3, 5, 7])
    assert found.quartiles == ((3, 3, 3), (7, 7, 7))
    assert found.cosine.tolist() == [0.25, 0.125, 0.375]
    assert repr(found) == f"Calibration(alpha_bars=(0.9, 0.5, 0.1), candidates={WINDOWS})"


def test_of_equal_windows_the_smallest_is_taken(digits):
    """Zeros outside the image: what reaches past every border changes nothing."""
    machine = pm.presets.local(digits.images[:50], 31)
    found = pm.calibrate(machine, {"ls": machine}, noise(2), (31, 7, 15, 17), 3)["ls"]
    assert found.best.unique().tolist() == [15]


@pytest.mark.parametrize(
    ("size", "receptive_field", "last"),
    [(8, 17, 15), (8, None, 15), (32, 17, 17), (32, None, 31), (1, None, 3)],
)
def test_windows_worth_trying(size, receptive_field, last):
    assert pm.candidate_windows(size, receptive_field) == tuple(range(3, last + 1, 2))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"machines": {}}, "one machine"),
        ({"noise": torch.empty(0, 1, 8, 8)}, "one sample"),
        ({"windows": ()}, "one window"),
        ({"windows": (3, 6)}, "odd"),
        ({"steps": 0}, "steps"),
        ({"schedule": "cosine"}, "CosineSchedule"),
    ],
)
def test_what_cannot_be_calibrated(digits, change, says):
    machine = pm.presets.local(digits.images[:9], 3)
    given = {"network": machine, "machines": {"ls": machine}, "noise": noise(1), "windows": WINDOWS, **change}
    with pytest.raises(pm.InputError, match=says):
        pm.calibrate(**given)


def save_random(folder, weight=1.0, **options):
    """A network that looks at 7 x 7 and was never trained."""
    torch.manual_seed(0)
    model = ResNet(sample_size=8, in_channels=1, width=8, layers=1, **options)
    torch.nn.init.normal_(model.down.weight, std=0.2).data *= weight
    save_network(model, folder)
    return folder


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    save_random(folder / "plain")
    save_random(folder / "circular", padding="circular")
    save_random(folder / "classes", num_class_embeds=10)
    save_random(folder / "broken", weight=float("nan"))
    return folder


def calibrate(network, out, *options):
    data = ("--data", "digits", "--limit", "100")
    small = ("--count", "4", "--seed", "0", "--batch", "2", "--steps", "3")
    return main(["calibrate", "--network", str(network), "--out", str(out), *data, *small, *options])


def test_a_folder_of_windows(networks, tmp_path, capsys):
    assert calibrate(networks / "plain", tmp_path / "run") == 0
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == RESULTS
    said = capsys.readouterr().out
    content = json.loads((tmp_path / "run" / "calibration.json").read_text())
    assert content["candidates"] == [3, 5, 7]
    network = load_network(networks / "plain")
    images = pm.load_dataset("digits", limit=100).images
    machines = {name: MACHINES[name](images, 3) for name in ("ls", "bbels")}
    expected = pm.calibrate(network, machines, noise(4), (3, 5, 7), 3, network.schedule)
    for name, calibration in expected.items():
        saved = pm.LocalitySchedule.load(tmp_path / "run" / f"{name}.json")
        assert saved == calibration.schedule
        assert f"{name}: {' '.join(map(str, saved.windows))} " in said
        assert content["machines"][name]["best"] == calibration.best.tolist()
        assert content["machines"][name]["network"] == network.fingerprint
    options = ["--machine", "ls", "--scales", str(tmp_path / "run" / "ls.json"), "--limit", "50"]
    assert main(["generate", *options, "--count", "1", "--steps", "2", "--out", str(tmp_path / "drawn")]) == 0
    assert calibrate(networks / "plain", tmp_path / "run") == 0
    assert "already complete" in capsys.readouterr().out


def test_a_resumed_run_gives_the_same_bytes(networks, tmp_path, monkeypatch):
    assert calibrate(networks / "plain", tmp_path / "whole", "--receptive-fields") == 0
    measure, steps = run.cosines, []

    def stop(*arguments):
        steps.append(1)
        if len(steps) == 5:  # in the second batch
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(run, "cosines", stop)
    assert calibrate(networks / "plain", tmp_path / "cut", "--receptive-fields") == 130
    assert [path.name for path in (tmp_path / "cut" / "unfinished").iterdir()] == ["0-2.safetensors"]
    assert calibrate(networks / "plain", tmp_path / "cut", "--receptive-fields") == 1
    assert calibrate(networks / "plain", tmp_path / "cut", "--resume") == 1  # other settings
    assert calibrate(networks / "plain", tmp_path / "cut", "--receptive-fields", "--resume") == 0
    assert len(steps) == 5 + 3
    for name in (*RESULTS, "receptive.json", "receptive.png"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_receptive_fields_beside_the_windows(networks, tmp_path):
    """Of the states on the network's way, in the calibrated windows, and with labels."""
    options = ("--machines", "bbels", "--receptive-fields")
    assert calibrate(networks / "classes", tmp_path / "run", *options) == 0
    assert not (tmp_path / "run" / "unfinished").exists()
    assert (tmp_path / "run" / "receptive.png").exists()
    content = json.loads((tmp_path / "run" / "receptive.json").read_text())
    schedule = pm.LocalitySchedule.load(tmp_path / "run" / "bbels.json")
    network, labels = load_network(networks / "classes"), torch.arange(4)
    way = pm.sample(network, noise(4), 3, network.schedule, labels, keep_trajectory=True)
    data = pm.load_dataset("digits", limit=100)
    machine = pm.presets.boundary_broken(data.images, 1, labels=data.labels)
    widths = []
    for i, (x, level) in enumerate(zip(way.states[::-1], way.alpha_bars[::-1], strict=True)):
        theirs = receptive_field(network_jacobian(network, x, level, labels))
        widths.append(effective_width(theirs))
        ours = receptive_field(machine_jacobian(machine, x, level, schedule.windows[i], labels))
        for name, field in (("network", theirs), ("bbels", ours)):
            found = torch.tensor(content["fields"][name][i], dtype=torch.float64)
            torch.testing.assert_close(found, field, rtol=1e-3, atol=1e-6)
    assert content["widths"]["network"] == pytest.approx(widths, rel=1e-3)
    assert content["rank_correlations"].keys() == {"bbels"}


def test_windows_saved_with_the_network_are_found_there(networks, tmp_path):
    folder = save_random(tmp_path / "network")
    assert calibrate(folder, tmp_path / "run", "--machines", "ls", "--windows", "7,3") == 0
    assert load_network(folder).scales("ls") is None
    again = ("--machines", "ls", "--windows", "7,3", "--save-with-network")
    assert calibrate(folder, tmp_path / "run", *again) == 0
    assert load_network(folder).scales("ls") == pm.LocalitySchedule.load(tmp_path / "run" / "ls.json")


def test_machines_follow_the_network(networks, tmp_path):
    assert calibrate(networks / "circular", tmp_path / "circular", "--windows", "3") == 0
    assert (tmp_path / "circular" / "els.json").exists()
    assert calibrate(networks / "classes", tmp_path / "classes", "--windows", "3") == 0
    record = json.loads((tmp_path / "classes" / "run.json").read_text())
    assert record["config"]["labels"] == list(range(10))


@pytest.mark.parametrize(
    ("network", "options", "hint"),
    [
        ("none", [], "holds no network"),
        ("plain", ["--windows", "3,4"], "odd"),
        ("plain", ["--windows", "3,x"], "3,x"),
        ("plain", ["--labels", "1"], "no classes"),
        ("classes", ["--labels", "12"], "0 to 9"),
        ("plain", ["--channels", "3"], "--channels 1"),
        ("plain", ["--size", "9"], "--size 8"),
        ("plain", ["--count", "0"], "--count"),
        ("plain", ["--steps", "0"], "--steps"),
        ("plain", ["--seed", "-1"], "number from 0"),
        ("plain", ["--machines", "is"], "ls, els, bbels"),
        ("plain", ["--machines", "ls,ls"], "twice"),
        ("plain", ["--device", "tpu"], "--device cpu"),
        ("plain", ["--rule", "gain"], "add --from-data"),
        ("plain", ["--held-out", "20"], "add --from-data"),
        ("plain", ["--max-window", "0"], "add --from-data"),
        ("plain", ["--resume"], "nothing to resume"),
        ("broken", [], "NaN"),
    ],
)
def test_mistakes_take_one_line(networks, tmp_path, capsys, network, options, hint):
    start = ["calibrate", "--network", str(networks / network), "--out", str(tmp_path / "run")]
    assert_one_clear_line(tmp_path, capsys, [*start, "--data", "digits", *options], hint)


def test_without_data_the_network_must_know_its_own(networks, tmp_path, capsys):
    start = ["calibrate", "--network", str(networks / "plain"), "--out", str(tmp_path / "run")]
    assert_one_clear_line(tmp_path, capsys, start, "--data")


def test_overwriting_leaves_nothing_of_the_run_before(networks, tmp_path):
    assert calibrate(networks / "plain", tmp_path / "run", "--windows", "3", "--machines", "ls,bbels") == 0
    (tmp_path / "run" / "notes.txt").write_text("mine")
    options = ["--windows", "3", "--machines", "bbels", "--overwrite"]
    assert calibrate(networks / "plain", tmp_path / "run", *options) == 0
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {"run.json", "bbels.json", "calibration.json", "calibration.png", "notes.txt"}


def test_the_windows_of_the_bundled_network_stay(tmp_path, capsys):
    command = ["calibrate", "--out", str(tmp_path / "run"), "--save-with-network"]
    assert_one_clear_line(tmp_path, capsys, command, "name yours with --network")
