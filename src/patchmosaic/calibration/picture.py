"""Calibrated windows against time (Kamb & Ganguli 2025, fig. 4b)."""

from collections.abc import Mapping, Sequence
from typing import Any

from patchmosaic import plots
from patchmosaic.calibration.calibrate import Calibration
from patchmosaic.comparison.names import short

_COLOURS = {"ls": plots.COLOURS[2], "els": plots.COLOURS[0], "bbels": plots.COLOURS[0]}


def draw(found: Mapping[str, Calibration], times: Sequence[float], data: str) -> Any:
    """One line of windows for each machine with its quartiles shaded, and the cosines below.

    Args:
        found: calibrations of machines by name.
        times: of their noise levels, ascending.
        data: name of the training images.
    """
    page, axes = plots.figure(2, 1, 7.6, 6.4, sharex=True, gridspec_kw={"height_ratios": [2.4, 1]})
    windows, likeness = axes[:, 0]
    for name, calibration in found.items():
        colour = _COLOURS[name]
        low, high = calibration.quartiles
        windows.fill_between(times, low, high, color=colour, alpha=0.16, linewidth=0)
        windows.plot(
            times,
            calibration.schedule.windows,
            color=colour,
            marker="o",
            markersize=4,
            linewidth=1.8,
            label=short(name),
        )
        likeness.plot(times, calibration.cosine, color=colour, marker="o", markersize=3, linewidth=1.5)
    candidates = next(iter(found.values())).candidates
    windows.set_ylim(candidates[0] - 1, candidates[-1] + 1)
    windows.set_yticks(candidates[:: -(-len(candidates) // 12)])
    windows.set_ylabel("window P that fits best, in pixels", fontsize=10)
    windows.legend(frameon=False, fontsize=11, loc="upper left")
    likeness.set_ylabel("cosine at that P", fontsize=10)
    likeness.set_xlabel("time t: from a nearly clean image to pure noise", fontsize=10)
    likeness.set_xlim(0, 1.02)
    for panel in (windows, likeness):
        panel.grid(color="#e4e4e8", linewidth=0.7)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    count = next(iter(found.values())).cosines.shape[1]
    page.suptitle(
        f"How far a network looks, on {data}: median of {count} trajectories, half of them shaded",
        fontsize=12,
        color=plots.INK,
    )
    return page
