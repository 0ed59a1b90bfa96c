"""The network's pictures with theory's below them, for the same noise."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from patchmosaic.comparison.compare import IDEAL, Comparison
from patchmosaic.plots import FAINT, INK, PAPER
from patchmosaic.presets import short
from patchmosaic.viz import to_pil, typeface

if TYPE_CHECKING:
    from PIL import Image

_SHOWN = 12
_CELL, _GAP, _MARGIN, _NAMES, _TOP, _LINE = 150, 12, 48, 170, 140, 32


def shown(result: Comparison) -> list[int]:
    """Rows of some seeds, evenly spaced by rank from the best r of the best machine to the worst."""
    r = result.metrics[result.main][result.best or IDEAL]["r"]
    order = r.argsort(descending=True, stable=True).tolist()
    count = min(_SHOWN, len(order))
    return [order[round(k * (len(order) - 1) / max(1, count - 1))] for k in range(count)]


def describe_shown(result: Comparison) -> str:
    """Which seeds :func:`shown` takes, in words."""
    total, count = len(result.network[result.main]), len(shown(result))
    chosen = "all seeds" if count == total else f"{count} of {total} seeds, evenly spaced by rank"
    return f"{chosen}, from the best r of {short(result.best or IDEAL)} with the network to the worst"


def stacked(result: Comparison) -> list[tuple[str, Float[Tensor, "b c h w"], Float[Tensor, " b"] | None]]:
    """Network, best machine, IS: the name, the images, and r with the network."""
    found = result.metrics[result.main]
    names = [name for name in (result.best, IDEAL) if name is not None and name in found]
    return [
        ("Network", result.network[result.main], None),
        *((short(name), result.machines[name], found[name]["r"]) for name in names),
    ]


def pairs(result: Comparison, captions: Sequence[Sequence[str]], names: tuple[str, str]) -> "Image.Image":
    """A column for each of some seeds: the network on top, the best machine under it, the ideal machine last.

    Args:
        result: what was compared.
        captions: of its pictures, as many lines for each, such as the seed.
        names: what the network and theory are called.
    """
    from PIL import Image, ImageDraw

    chosen, rows = shown(result), stacked(result)
    _, _, pixels_high, pixels_wide = rows[0][1].shape
    scale = max(1, _CELL // max(pixels_high, pixels_wide))
    cell_height, cell_width = scale * pixels_high + _GAP, scale * pixels_wide + _GAP
    below = _TOP + len(rows) * cell_height
    network, theory = names
    title = f"The same noise, to {network} ({result.main} steps) and to {theory} ({result.steps} steps)"
    subtitle = f"Shown: {describe_shown(result)}."
    probe = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    text_width = max(probe.textlength(title, typeface(30)), probe.textlength(subtitle, typeface(21)))
    width = max(_NAMES + len(chosen) * cell_width - _GAP, int(text_width) + 1) + 2 * _MARGIN
    page = Image.new("RGB", (width, below + (len(captions[0]) + len(rows) - 1) * _LINE + _MARGIN), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, 36), title, INK, typeface(30))
    draw.text((_MARGIN, 84), subtitle, FAINT, typeface(21))
    for line, (name, images, _) in enumerate(rows):
        y = _TOP + line * cell_height
        draw.text((_MARGIN, y + cell_height // 2), name, INK, typeface(26), anchor="lm")
        for column, i in enumerate(chosen):
            page.paste(to_pil(images[i], scale), (_MARGIN + _NAMES + column * cell_width, y))
    for column, i in enumerate(chosen):
        scores = [f"{name} r {float(r[i]):.2f}" for name, _, r in rows if r is not None]
        middle = _MARGIN + _NAMES + column * cell_width + (cell_width - _GAP) // 2
        for line, text in enumerate((*captions[i], *scores)):
            draw.text(
                (middle, below + line * _LINE), text, INK if text in scores else FAINT, typeface(19), "mt"
            )
    return page
