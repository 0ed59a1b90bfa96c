"""Colours of all drawings, and what those of numbers share; matplotlib is imported when one is drawn."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from patchmosaic.records import write

COLOURS = ("#0b3c7d", "#4d8fd1", "#c8553d", "#e0a458", "#7a9e7e", "#8d7aa8", "#555555", "#a0a0a0")
INK, FAINT, PAPER, GRID = "#1c1c1e", "#6e6e76", "#ffffff", "#e4e4e8"


def empty_page(width: float, height: float) -> Any:
    """A figure of so many inches, without a window system behind it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    page = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(page)
    return page


def figure(lines: int, columns: int, width: float, height: float, **options: Any) -> tuple[Any, Any]:
    """A page with a grid of axes.

    Args:
        lines: of the grid.
        columns: of the grid.
        width: in inches.
        height: in inches.
        options: for matplotlib's ``Figure.subplots``.
    """
    page = empty_page(width, height)
    return page, page.subplots(lines, columns, squeeze=False, **options)


def tidy(panel: Any, axis: str = "both", which: str = "major") -> None:
    """A faint grid behind the curves, and no frame above and on the right."""
    panel.grid(axis=axis, which=which, color=GRID, linewidth=0.7)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def save(page: Any, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    write(path, lambda temporary: render(page, temporary))


def render(page: Any, file: Any) -> None:
    """Write a PNG; a sign that the font lacks is a box in it, and nothing to warn of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        page.savefig(file, dpi=110)


def curve(values: Sequence[float], title: str, axes: tuple[str, str]) -> Any:
    """A noisy curve on a logarithmic axis, with its running median over a hundredth of its length.

    Args:
        values: positive numbers, at 1, 2, ...
        title: of the picture.
        axes: names of the horizontal and the vertical axis.
    """
    page, panels = figure(1, 1, 8, 4.5)
    panel, y = panels[0, 0], torch.tensor(values, dtype=torch.float64)
    span = max(1, len(y) // 100)
    smooth = y.unfold(0, span, 1).median(-1).values
    panel.semilogy(range(1, len(y) + 1), y, color="#c9d3e0", linewidth=0.8)
    panel.semilogy([i + (span + 1) / 2 for i in range(len(smooth))], smooth, color=COLOURS[0], linewidth=1.8)
    panel.set_xlabel(axes[0])
    panel.set_ylabel(axes[1])
    panel.set_title(title, loc="left", color=INK)
    tidy(panel, "y", "both")
    return page
