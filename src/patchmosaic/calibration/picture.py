"""Calibrated windows against time, and receptive fields (Kamb & Ganguli 2025, fig. 4)."""

from collections.abc import Mapping, Sequence
from typing import Any

from patchmosaic import plots
from patchmosaic.calibration.calibrate import Calibration
from patchmosaic.calibration.fields import NETWORK, Fields
from patchmosaic.presets import short

_COLOURS = {"ls": plots.COLOURS[2], "els": plots.COLOURS[0], "bbels": plots.COLOURS[0]}
_TIME = "time t: from a nearly clean image to pure noise"
_SHOWN = 5  # noise levels with a picture of the field


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
    likeness.set_xlabel(_TIME, fontsize=10)
    likeness.set_xlim(0, 1.02)
    for panel in (windows, likeness):
        plots.tidy(panel)
    count = next(iter(found.values())).cosines.shape[1]
    page.suptitle(
        f"How far a network looks, on {data}\nmedian of {count} trajectories, half of them shaded",
        fontsize=12,
        color=plots.INK,
    )
    return page


def draw_fields(fields: Fields, found: Mapping[str, Calibration], times: Sequence[float], data: str) -> Any:
    """Receptive fields at some times, the network's above the machines', and their widths at all times.

    Args:
        fields: of the network and of the machines in ``found``.
        found: calibrations of machines by name.
        times: of their noise levels, ascending.
        data: name of the training images.
    """
    last = len(times) - 1
    shown = sorted({round(k * last / (_SHOWN - 1)) for k in range(_SHOWN)})
    heights = (1.68 * len(fields.fields) + 0.2, 3.6)
    page = plots.empty_page(8.4, sum(heights) + 0.3)
    above, below = page.subfigures(2, 1, height_ratios=heights)
    panels = above.subplots(len(fields.fields), len(shown), squeeze=False)
    for row, (name, levels) in zip(panels, fields.fields.items(), strict=True):
        for panel, i in zip(row, shown, strict=True):
            panel.imshow(
                (levels[i] / levels[i].max().clamp(min=1e-300)).numpy(), cmap="magma", vmin=0, vmax=1
            )
            panel.set_xticks([])
            panel.set_yticks([])
            if name == NETWORK:
                panel.set_title(f"t = {times[i]:g}", fontsize=10, color=plots.INK)
            else:
                panel.set_xlabel(f"P = {found[name].schedule.windows[i]}", fontsize=9, color=plots.FAINT)
        row[0].set_ylabel(name if name == NETWORK else short(name), fontsize=11)
    _draw_widths(below.subplots(), fields, found, times)
    page.suptitle(
        f"What the clean estimate of the centre pixel depends on, {data}\nmean |derivative|, each up to its largest",
        fontsize=11,
        color=plots.INK,
    )
    return page


def _draw_widths(
    panel: Any, fields: Fields, found: Mapping[str, Calibration], times: Sequence[float]
) -> None:
    panel.plot(
        times, fields.widths(NETWORK), color=plots.INK, linewidth=2.2, label="network, effective width"
    )
    for name, calibration in found.items():
        colour = _COLOURS[name]
        r = fields.rank_correlations[name]
        label = f"{short(name)}, calibrated P (ρ = {r:.2f})"
        panel.step(times, calibration.schedule.windows, where="mid", color=colour, linewidth=1.6, label=label)
        label = f"{short(name)}, effective width"
        panel.plot(times, fields.widths(name), color=colour, linestyle=":", linewidth=1.8, label=label)
    panel.set_xlabel(_TIME, fontsize=10)
    panel.set_ylabel("pixels", fontsize=10)
    panel.set_title(
        "Widths; ρ: rank correlation of calibrated P with the network's effective width",
        fontsize=11,
        color=plots.INK,
    )
    panel.set_xlim(0, 1.02)
    panel.set_ylim(0, 1.4 * panel.get_ylim()[1])  # with room for the legend
    panel.legend(frameon=False, fontsize=9, loc="upper left", ncols=2)
    plots.tidy(panel)
