"""A row as the commands that carry it out, and the table they end in."""

from pathlib import Path
from typing import Any

from patchmosaic.errors import InputError
from patchmosaic.presets import short
from patchmosaic.records import read_json
from patchmosaic.reproduction.rows import IMAGES, SIZE, Budget, Row

STAGES = ("train", "calibrate", "compare")
NETWORK_STEPS = (150, 20)


def commands(row: Row, budget: Budget, folder: Path, data: str | None, device: str) -> list[list[str]]:
    """The arguments of ``patchmosaic`` for each of ``STAGES``.

    Args:
        row: what to reproduce.
        budget: how much of it.
        folder: where the stages' folders go.
        data: training images instead of the row's own source.
        device: "cpu" or "cuda".

    Raises:
        InputError: where the row's images must be given.
    """
    images = IMAGES[row.images]
    source = data or images.source
    if source is None:
        raise InputError(f"this row needs {images.needs}: give it with --data")
    width = budget.width_of(row.network)
    train = [
        "train",
        "--data",
        source,
        "--size",
        str(SIZE),
        "--channels",
        "1" if "mnist" in row.images else "3",
    ]
    train += ["--limit", str(budget.limit)] if budget.limit else []
    train += ["--network", row.network, "--padding", row.padding, *budget.training]
    train += ["--width", str(width)] if width else []
    train += ["--skip"] if budget.skips(row.network) else []
    train += ["--conditional"] if row.conditional else []
    network = ["--network", str(folder / "train")]
    machines = ["ls", row.machines["ELS"]] + (["bbels"] if row.padding == "circular" else [])
    calibrate = ["calibrate", *network, "--machines", ",".join(machines), "--count", str(budget.trajectories)]
    scales = ["--scales", str(folder / "calibrate")]
    compare = ["compare", *network, *scales, "--machines", ",".join(["is", *machines])]
    compare += ["--count", str(budget.seeds), "--network-steps", ",".join(map(str, NETWORK_STEPS))]
    return [
        [*stage, "--device", device, "--out", str(folder / stage[0])] for stage in (train, calibrate, compare)
    ]


def reductions(row: Row, budget: Budget) -> list[str]:
    """What is less than published, in words."""
    found = []
    if budget.limit:
        found.append(f"{budget.limit:,} training images")
    if width := budget.width_of(row.network):
        found.append(f"{width} channels")
    if budget.skips(row.network):
        found.append("a path from input to output (--skip)")
    if budget.training != ("--epochs", "300"):
        found.append(f"training with {' '.join(budget.training)}")
    if budget.seeds < 100:
        found.append(f"{budget.seeds} seeds")
    return found


def table(name: str, row: Row, budget: Budget, folder: Path) -> dict[str, Any]:
    """Our figures beside the paper's, from the comparison's ``summary.json``."""
    found = read_json(folder / "compare" / "summary.json")
    by_steps = {part["network_steps"]: part["machines"] for part in (found, *found["also"])}
    machines = {
        column: {
            "machine": machine,
            "ours": [by_steps[steps][machine]["r"]["median"] for steps in NETWORK_STEPS],
            "paper": list(row.paper[column]),
        }
        for column, machine in row.machines.items()
    }
    extra = {
        machine: {
            "machine": machine,
            "ours": [by_steps[steps][machine]["r"]["median"] for steps in NETWORK_STEPS],
        }
        for machine in by_steps[NETWORK_STEPS[0]]
        if machine not in row.machines.values()
    }
    return {
        "row": name,
        "network_steps": list(NETWORK_STEPS),
        "median_r": machines | extra,
        "reduced": reductions(row, budget),
    }


def markdown(content: dict[str, Any]) -> str:
    """The table as text; median r over the seeds, network in 150 / 20 steps, theory in 20."""
    lines = [
        f"**{content['row']}**: median r, network in {' / '.join(map(str, content['network_steps']))} steps",
        "",
        "| machine | ours | paper |",
        "|---|---|---|",
    ]
    for column, entry in content["median_r"].items():
        name = short(entry["machine"])
        label = name if column in (name, entry["machine"]) else f"{column} ({name})"
        lines.append(f"| {label} | {_figures(entry['ours'])} | {_figures(entry.get('paper'))} |")
    lines += ["", f"Reduced: {'; '.join(content['reduced']) or 'nothing'}."]
    return "\n".join(lines) + "\n"


def _figures(values: list[float] | None) -> str:
    return "-" if values is None else " / ".join(f"{value:.2f}" for value in values)
