"""The files of a finished comparison, and its table for the terminal."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from patchmosaic.comparison import page, pictures, scatter
from patchmosaic.comparison.compare import Comparison, percent
from patchmosaic.comparison.run import Run
from patchmosaic.metrics import METRICS
from patchmosaic.presets import short
from patchmosaic.records import write_csv, write_json, write_tensors, write_text
from patchmosaic.viz import save_png

COLUMNS = ("seed", "label", "network_steps", "machine", *METRICS)


def write_results(run: Run, result: Comparison) -> None:
    """Write everything that ``run.files`` promises, and clear up."""
    folder = run.files.path
    tensors = {f"network_{steps}": images for steps, images in result.network.items()}
    tensors |= {**result.machines, "seeds": torch.tensor(run.settings.seeds)}
    if run.labels is not None:
        tensors["labels"] = run.labels
    write_tensors(folder / "samples.safetensors", tensors)
    write_csv(folder / "per_seed.csv", COLUMNS, _rows(run, result))
    captions = [run.caption(i) for i in range(len(run.settings.seeds))]
    save_png(pictures.pairs(result, captions, run.names), folder / "pairs.png")
    panels = scatter.scatters(result)
    if panels:
        save_png(scatter.side_by_side(panels), folder / "scatter.png")
    write_text(folder / "report.html", page.report(run, result))
    write_json(folder / "summary.json", result.summary())
    run.files.close()


def _rows(run: Run, result: Comparison) -> Iterator[tuple[Any, ...]]:
    for steps, machines in result.metrics.items():
        for machine, metrics in machines.items():
            for i, seed in enumerate(run.settings.seeds):
                label = "" if run.labels is None else int(run.labels[i])
                yield (seed, label, steps, machine, *(float(metrics[name][i]) for name in METRICS))


def table(summary: dict[str, Any], machines: Sequence[str]) -> str:
    """What the terminal shows: a line for each machine, columns for each number of network steps."""
    runs = [summary, *summary["also"]]
    heads = [f"network in {run['network_steps']} steps" for run in runs]
    lines = [
        f"{'':8}" + "".join(f"   {head:<42}" for head in heads),
        f"{'machine':8}" + f"   {'r median (mean)':<17}{'r2':>7}{'R2':>9}{'beats IS':>9}" * len(runs),
    ]
    for name in machines:
        cells = (_cells(run["machines"][name]) for run in runs)
        lines.append(f"{short(name):8}" + "".join(cells))
    return "\n".join(line.rstrip() for line in lines)


def _cells(found: dict[str, Any]) -> str:
    r = f"{found['r']['median']:.3f} ({found['r']['mean']:.3f})"
    r2, determination = found["r2"]["median"], found["R2"]["median"]
    return f"   {r:<17}{r2:>7.3f}{determination:>9.3f}{percent(found['beats_is']):>9}"
