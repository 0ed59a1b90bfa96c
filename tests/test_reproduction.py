"""Rows of the paper's table: complete, carried out by commands, shown beside our figures."""

import json
import re
from pathlib import Path

import pytest

from mistakes import assert_one_clear_line
from patchmosaic.cli import build_parser, main
from patchmosaic.reproduction import BUDGETS, ROWS, command, stages


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_three_commands_that_the_parser_takes(name, budget, tmp_path):
    row = ROWS[name]
    found = stages.commands(row, BUDGETS[budget], tmp_path, "images", "cpu")
    parsed = [build_parser().parse_args(arguments) for arguments in found]
    assert [arguments[0] for arguments in found] == list(stages.STAGES)
    train, calibrate, compare = parsed
    assert (train.network, train.padding, train.conditional) == (row.network, row.padding, row.conditional)
    assert train.channels == (1 if "mnist" in name else 3)
    assert set(row.machines.values()) <= set(compare.machines)
    assert set(calibrate.machines) == set(compare.machines) - {"is"}
    assert compare.network_steps == (150, 20)
    assert (budget == "paper") == (not stages.reductions(row, BUDGETS[budget]))


def test_the_papers_budget_is_the_papers_recipe(tmp_path):
    train = build_parser().parse_args(
        stages.commands(ROWS["cifar10-resnet-zeros"], BUDGETS["paper"], tmp_path, "images", "cuda")[0]
    )
    assert (train.lr, train.decay, train.batch, train.epochs, train.steps) == (1e-4, 0.999965, 128, 300, None)
    assert (train.width, train.layers, train.limit, train.ema, train.skip) == (None, None, None, 0.0, False)


def test_the_table_shows_ours_beside_the_papers(tmp_path):
    def machines(shift):
        return {
            name: {"r": {"median": value + shift}}
            for name, value in (("els", 0.7), ("ls", 0.4), ("is", 0.2), ("bbels", 0.6))
        }

    summary = {
        "network_steps": 150,
        "machines": machines(0),
        "also": [{"network_steps": 20, "machines": machines(0.05)}],
    }
    (tmp_path / "compare").mkdir()
    (tmp_path / "compare" / "summary.json").write_text(json.dumps(summary))
    name = "mnist-resnet-circular"
    text = stages.markdown(stages.table(name, ROWS[name], BUDGETS["smoke"], tmp_path))
    assert "| ELS | 0.70 / 0.75 | 0.77 / 0.73 |" in text
    assert "| IS | 0.20 / 0.25 | 0.15 / 0.14 |" in text
    assert "| bbELS | 0.60 / 0.65 | - |" in text
    assert "1,000 training images" in text


def test_commands_go_on_where_they_stopped(tmp_path, monkeypatch, capsys):
    """The stages are stood in for: what is checked is what they are asked, and that the table ends it."""
    asked = []

    def parser():
        class Parsed:
            def parse_args(self, arguments):
                asked.append(arguments)
                return type("Args", (), {"run": lambda args: None})

        return Parsed()

    folder = tmp_path / "row"
    for stage in ("train", "compare"):
        (folder / stage).mkdir(parents=True)
    (folder / "train" / "run.json").write_text("{}")
    found = {name: {"r": {"median": 0.5}} for name in ("is", "ls", "bbels")}
    summary = {"network_steps": 150, "machines": found, "also": [{"network_steps": 20, "machines": found}]}
    (folder / "compare" / "summary.json").write_text(json.dumps(summary))
    args = build_parser().parse_args(
        ["reproduce", "mnist-resnet-zeros", "--data", "images", "--out", str(folder)]
    )
    monkeypatch.setattr("patchmosaic.cli.build_parser", parser)
    command._reproduce(args)
    assert [("--resume" in arguments) for arguments in asked] == [True, False, False]
    assert "0.50 / 0.50 | 0.94 / 0.94" in (folder / "table.md").read_text()
    shown = re.findall(r"\$ patchmosaic (\w+)", capsys.readouterr().out)
    assert shown == ["train", "calibrate", "compare"]


BAD = {
    "unknown row": ("mnist", "mnist-resnet-zeros"),
    "unknown budget": ("mnist-resnet-zeros --budget free", "smoke"),
    "images to be given": ("celeba-resnet-zeros", "CelebA"),
    "missing file": ("mnist-resnet-zeros --data nowhere.parquet", "nowhere.parquet"),
}


@pytest.mark.parametrize("mistake", BAD)
def test_mistakes_take_one_clear_line(tmp_path, capsys, mistake):
    arguments, hint = BAD[mistake]
    assert_one_clear_line(
        tmp_path, capsys, ["reproduce", *arguments.split(), "--out", str(tmp_path / "run")], hint
    )


def test_a_dry_run_prints_commands_only(tmp_path, capsys):
    assert main(["reproduce", "cifar10-attention-zeros", "--dry-run", "--out", str(tmp_path / "run")]) == 0
    assert "--network attention-unet" in capsys.readouterr().out
    assert not Path(tmp_path / "run").exists()
