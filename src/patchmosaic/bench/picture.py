"""The measurements as bars, one panel for each machine and noise level."""

from itertools import product
from pathlib import Path
from typing import Any

from patchmosaic import plots
from patchmosaic.bench.contestants import NAMES
from patchmosaic.bench.problem import useful_operations
from patchmosaic.bench.report import Row, rows


def save(record: dict[str, Any], folder: Path) -> None:
    """Draw ``bench.png`` and, where slopes were measured, ``slopes.png``."""
    plots.save(_bars(record), folder / "bench.png")
    if record["slopes"]:
        plots.save(_slopes(record["slopes"]), folder / "slopes.png")


def _bars(record: dict[str, Any]) -> Any:
    found = list(rows(record))
    lines = list(dict.fromkeys((row.data, row.machine) for row in found))
    levels = list(dict.fromkeys(row.level for row in found))
    contestants = list(dict.fromkeys(row.contestant for row in found))
    channels = {cell["name"]: cell["channels"] for cell in record["cells"]}
    figure, axes = plots.figure(
        len(lines), len(levels), 1.5 + 4.2 * len(levels), 1.4 + 2.7 * len(lines), sharey=True
    )
    for (i, (data, machine)), (j, level) in product(enumerate(lines), enumerate(levels)):
        panel = axes[i, j]
        some = [row for row in found if (row.data, row.machine, row.level) == (data, machine, level)]
        _panel(panel, some, contestants)
        _roofs(panel, record["peaks"], channels[data], label=j == len(levels) - 1)
        panel.set_title(f"{machine} on {data}, t = {level:g}", fontsize=11, color=plots.INK, loc="left")
        if j == 0:
            panel.set_ylabel("M pairs per second", fontsize=10)
        if i == len(lines) - 1:
            panel.set_xlabel("window P", fontsize=10)
    figure.suptitle("Pairs of pixel and patch per second, more is better", fontsize=14, color=plots.INK)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)), frameon=False)
    return figure


def _panel(panel: Any, some: list[Row], contestants: list[str]) -> None:
    """Bars of the median rate, grouped by window; a tick at the fastest repeat."""
    windows = sorted({row.window for row in some})
    width = 0.84 / len(contestants)
    for k, name in enumerate(contestants):
        place = {row.window: row for row in some if row.contestant == name}
        x = [windows.index(window) + (k - (len(contestants) - 1) / 2) * width for window in place]
        colour = plots.COLOURS[NAMES.index(name) % len(plots.COLOURS)]
        panel.bar(x, [row.rate / 1e6 for row in place.values()], width * 0.92, color=colour, label=name)
        best = [row.best_rate / 1e6 for row in place.values()]
        panel.plot(x, best, linestyle="none", marker="_", markersize=6, color=plots.INK, markeredgewidth=0.8)
    panel.set_xticks(range(len(windows)), [str(window) for window in windows])
    panel.set_yscale("log")
    plots.tidy(panel, "y")


def _roofs(panel: Any, peaks: dict[str, float], channels: int, label: bool) -> None:
    """Lines where one exponential for a pair, or its useful multiply-adds, would use the whole computer."""
    exponentials = peaks["exp_per_second"] / 1e6
    additions = peaks["fma_per_second"] / useful_operations(channels) / 1e6
    exp_above = exponentials > additions
    for name, height, style, above in (
        ("exp peak", exponentials, "--", exp_above),
        ("FMA peak", additions, ":", not exp_above),
    ):
        panel.axhline(height, color=plots.FAINT, linestyle=style, linewidth=1.1)
        if label:
            panel.text(
                1.01,
                height,
                name,
                transform=panel.get_yaxis_transform(),
                fontsize=9,
                color=plots.FAINT,
                va="bottom" if above else "top",
            )


def _slopes(found: list[dict[str, Any]]) -> Any:
    figure, axes = plots.figure(1, len(found), 1 + 3.4 * len(found), 3.6, sharey=True)
    for panel, axis in zip(axes[0], found, strict=True):
        values, times = axis["values"], axis["seconds"]
        panel.loglog(values, times, marker="o", color=plots.COLOURS[0], label="measured")
        same_cost = [times[-1] * pairs / axis["pairs"][-1] for pairs in axis["pairs"]]
        panel.loglog(values, same_cost, linestyle="--", color=plots.FAINT, label="in proportion to the pairs")
        panel.set_xticks(values, [f"{value:,}" for value in values])
        panel.minorticks_off()
        slope = "" if axis["slope"] is None else f", slope {axis['slope']:.2f}"
        panel.set_title(f"{axis['axis']}{slope}", fontsize=11, loc="left", color=plots.INK)
        panel.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("seconds", fontsize=10)
    axes[0, 0].legend(frameon=False, fontsize=9)
    figure.suptitle("Time of the box engine", fontsize=14, color=plots.INK)
    return figure
