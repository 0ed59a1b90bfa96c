"""Held-out risk against the window at each noise level, and the window chosen against time."""

from collections.abc import Sequence
from typing import Any

from patchmosaic import plots
from patchmosaic.calibration.predict import AS_NETWORK, PredictedSchedule
from patchmosaic.locality import LocalitySchedule

_COLUMNS = 5


def draw_risk(schedule: PredictedSchedule, times: Sequence[float], title: str) -> Any:
    """A panel for each noise level: risk with its standard error, its minimum, and the window chosen.

    Args:
        schedule: with its risks, lowest noise first.
        times: of its noise levels, ascending.
        title: what was measured.
    """
    lines = -(-len(times) // _COLUMNS)
    page, axes = plots.figure(lines, _COLUMNS, 11, 1.75 * lines + 0.7, sharex=True)
    for panel in axes.flat[len(times) :]:
        panel.set_visible(False)
    candidates = schedule.candidates
    for i, (panel, t, chosen, risk, stderr) in enumerate(
        zip(axes.flat, times, schedule.windows, schedule.risk, schedule.risk_stderr, strict=False)
    ):
        panel.errorbar(candidates, risk, stderr, color=plots.COLOURS[0], linewidth=1.3, elinewidth=0.8)
        least, at = int(risk.argmin()), candidates.index(chosen)
        panel.plot(
            candidates[least], risk[least], "o", markerfacecolor="none", color=plots.COLOURS[2], markersize=9
        )
        panel.plot(chosen, risk[at], "o", color=plots.COLOURS[2], markersize=4)
        panel.set_title(f"t = {t:g}, P = {chosen}", fontsize=9, color=plots.INK)
        panel.tick_params(labelsize=7)
        panel.margins(y=0.12)
        if schedule.network_risk is not None:
            panel.set_ylim(panel.get_ylim())  # a network's risk near pure noise is beyond all
            panel.axhline(
                float(schedule.network_risk[i]), color=plots.COLOURS[1], linestyle="--", linewidth=1.1
            )
        plots.tidy(panel)
    page.supxlabel("window P, in pixels", fontsize=10)
    page.supylabel("mean squared error on held-out images", fontsize=10)
    marks = "ring: least risk; dot: the window chosen"
    if schedule.network_risk is not None:
        marks += "; dashes: the network"
    page.suptitle(f"{title}\n{marks}", fontsize=11, color=plots.INK)
    return page


def draw_windows(
    schedule: PredictedSchedule,
    times: Sequence[float],
    title: str,
    beside: LocalitySchedule | None = None,
    name: str = "",
) -> Any:
    """The window chosen and that of least risk against time, beside those of another schedule.

    Args:
        schedule: lowest noise first.
        times: of its noise levels, ascending.
        title: what was measured.
        beside: calibrated or published windows, or None.
        name: of those.
    """
    page, axes = plots.figure(1, 1, 7.6, 4.4)
    panel = axes[0, 0]
    add_windows(panel, schedule, times, beside, name)
    panel.set_ylabel("window P, in pixels", fontsize=10)
    panel.set_xlabel("time t: from a nearly clean image to pure noise", fontsize=10)
    panel.set_title(title, fontsize=11, color=plots.INK)
    panel.legend(frameon=False, fontsize=10, loc="upper left")
    return page


def add_windows(
    panel: Any,
    schedule: PredictedSchedule,
    times: Sequence[float],
    beside: LocalitySchedule | None = None,
    name: str = "",
) -> None:
    """The curves of :func:`draw_windows`, on a panel."""
    least = schedule.with_rule("argmin").windows
    panel.plot(times, least, ":", color=plots.FAINT, linewidth=1.4, label="least risk")
    panel.plot(
        times,
        schedule.windows,
        "o-",
        color=plots.COLOURS[0],
        markersize=4,
        linewidth=1.8,
        label="as good as the network"
        if schedule.rule == AS_NETWORK
        else f"from data alone, rule '{schedule.rule}'",
    )
    if beside is not None:
        found = [beside(alpha_bar) for alpha_bar in schedule.alpha_bars]
        panel.plot(times, found, "s--", color=plots.COLOURS[2], markersize=4, linewidth=1.4, label=name)
    panel.set_xlim(0, 1.02)
    panel.set_ylim(schedule.candidates[0] - 1, None)
    plots.tidy(panel)
