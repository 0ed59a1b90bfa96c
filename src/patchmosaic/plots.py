"""What drawings of numbers share; needs matplotlib, but only when called."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from patchmosaic.records import write

COLOURS = ("#0b3c7d", "#4d8fd1", "#c8553d", "#e0a458", "#7a9e7e", "#8d7aa8", "#555555", "#a0a0a0")
INK, FAINT = "#1c1c1e", "#6e6e76"


def available() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def figure(lines: int, columns: int, width: float, height: float, **options: Any) -> tuple[Any, Any]:
    """A grid of axes without a window system behind it.

    Args:
        lines: of the grid.
        columns: of the grid.
        width: in inches.
        height: in inches.
        options: for matplotlib's ``Figure.subplots``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    page = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(page)
    return page, page.subplots(lines, columns, squeeze=False, **options)


def save(page: Any, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    write(path, lambda temporary: page.savefig(temporary, dpi=110))
