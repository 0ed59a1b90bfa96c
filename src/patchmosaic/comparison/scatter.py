"""r of a machine against r of IS, seed by seed (Kamb & Ganguli 2025, fig. 10)."""

import math
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from patchmosaic.comparison.compare import IDEAL, Comparison, percent
from patchmosaic.plots import FAINT, GRID, INK, PAPER
from patchmosaic.presets import short
from patchmosaic.viz import typeface

if TYPE_CHECKING:
    from PIL import Image

_DOT = "#0b5cad"
_PANEL, _LEFT, _TOP, _SIDE = 760, 110, 124, 540  # in pixels, twice as large as a page shows it


def scatters(result: Comparison) -> dict[str, "Image.Image"]:
    """A panel for each machine beside IS; none where IS is missing or alone."""
    found = result.metrics[result.main]
    if IDEAL not in found:
        return {}
    lowest = min(float(metrics["r"].min()) for metrics in found.values())
    low = min(0.5, math.floor(4 * lowest) / 4 if lowest >= 0 else math.floor(2 * lowest) / 2)
    return {
        name: _panel(found[IDEAL]["r"], metrics["r"], low, name, percent(result.beats_is(result.main, name)))
        for name, metrics in found.items()
        if name != IDEAL
    }


def side_by_side(panels: dict[str, "Image.Image"]) -> "Image.Image":
    """All panels in one picture."""
    from PIL import Image

    page = Image.new("RGB", (_PANEL * len(panels), _PANEL), PAPER)
    for column, panel in enumerate(panels.values()):
        page.paste(panel, (column * _PANEL, 0))
    return page


def _panel(
    x: Float[Tensor, " b"], y: Float[Tensor, " b"], low: float, machine: str, share: str
) -> "Image.Image":
    """Points (x, y) in the square from ``low`` to 1, and its diagonal."""
    from PIL import Image, ImageDraw

    def at(a: float, b: float) -> tuple[float, float]:
        return _LEFT + (a - low) / (1 - low) * _SIDE, _TOP + (1 - b) / (1 - low) * _SIDE

    page = Image.new("RGB", (_PANEL, _PANEL), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((_LEFT, 30), f"{short(machine)} against IS", INK, typeface(28))
    draw.text((_LEFT, 76), f"above the diagonal: {share} of {len(x)} seeds", FAINT, typeface(21))
    spacing = 0.25 if low >= 0 else 0.5
    for k in range(round((1 - low) / spacing) + 1):
        tick = low + k * spacing
        draw.line((*at(tick, low), *at(tick, 1)), GRID, 2)
        draw.line((*at(low, tick), *at(1, tick)), GRID, 2)
        right, down = at(tick, low)
        draw.text((right, down + 12), f"{tick:.2f}", FAINT, typeface(19), anchor="mt")
        draw.text((_LEFT - 12, at(low, tick)[1]), f"{tick:.2f}", FAINT, typeface(19), anchor="rm")
    draw.line((*at(low, low), *at(1, 1)), FAINT, 3)
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        h, v = at(a, b)
        draw.ellipse((h - 7, v - 7, h + 7, v + 7), _DOT, PAPER, 2)
    middle = _LEFT + _SIDE // 2
    draw.text((middle, _TOP + _SIDE + 50), "r of IS with the network", INK, typeface(21), anchor="mt")
    upright = Image.new("RGB", (_SIDE, 34), PAPER)
    text = f"r of {short(machine)} with the network"
    ImageDraw.Draw(upright).text((_SIDE // 2, 2), text, INK, typeface(21), anchor="mt")
    page.paste(upright.rotate(90, expand=True), (8, _TOP))
    return page
