"""Pictures: small images enlarged without blur, side by side, with captions."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from patchmosaic.records import write

if TYPE_CHECKING:
    from PIL import Image

_INK, _FAINT, _PAPER = (28, 28, 30), (110, 110, 118), (255, 255, 255)
_GAP, _PAIR_GAP, _MARGIN, _LINE = 4, 20, 20, 17


def to_pil(image: Float[Tensor, "c h w"], scale: int = 1) -> "Image.Image":
    """One image in [-1, 1], clamped, with every pixel drawn ``scale`` pixels wide."""
    from PIL import Image

    pixels = ((image.detach().cpu().double().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    array = pixels.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array).resize(
        (array.shape[1] * scale, array.shape[0] * scale), Image.Resampling.NEAREST
    )


def pairs(
    left: Float[Tensor, "b c h w"],
    right: Float[Tensor, "b c h w"],
    captions: Sequence[Sequence[str]],
    title: str,
    subtitle: str,
) -> "Image.Image":
    """A grid of pairs about 1,000 pixels wide, each with lines of caption below.

    Args:
        left: images in [-1, 1].
        right: as many images of the same size.
        captions: one sequence of lines per pair.
        title: the first line of the picture.
        subtitle: the second line, fainter.
    """
    from PIL import Image, ImageDraw, ImageFont

    count, _, height, width = left.shape
    scale = max(1, 96 // max(height, width))
    cell_width, cell_height = 2 * scale * width + _GAP, scale * height
    rows = -(-count // max(1, 1000 // (cell_width + _PAIR_GAP)))
    columns = -(-count // rows)
    lines = max(len(caption) for caption in captions)
    row_height = cell_height + lines * _LINE + _PAIR_GAP
    title_font, font = ImageFont.load_default(20), ImageFont.load_default(13)
    probe = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    text_width = max(probe.textlength(title, title_font), probe.textlength(subtitle, font))
    page_width = max(columns * (cell_width + _PAIR_GAP) - _PAIR_GAP, int(text_width) + 1) + 2 * _MARGIN
    top = _MARGIN + 62
    page = Image.new("RGB", (page_width, top + rows * row_height + _MARGIN - _PAIR_GAP), _PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, _MARGIN - 4), title, _INK, title_font)
    draw.text((_MARGIN, _MARGIN + 26), subtitle, _FAINT, font)
    for i in range(count):
        x = _MARGIN + i % columns * (cell_width + _PAIR_GAP)
        y = top + i // columns * row_height
        page.paste(to_pil(left[i], scale), (x, y))
        page.paste(to_pil(right[i], scale), (x + scale * width + _GAP, y))
        for line, text in enumerate(captions[i]):
            draw.text((x, y + cell_height + 3 + line * _LINE), text, _FAINT if line else _INK, font)
    return page


def grid(images: Float[Tensor, "b c h w"], title: str, subtitle: str) -> "Image.Image":
    """Pictures in [-1, 1] side by side, about 1,000 pixels wide."""
    from PIL import Image, ImageDraw, ImageFont

    count, _, height, width = images.shape
    scale = max(1, 96 // max(height, width))
    cell_width, cell_height = scale * width + 2 * _GAP, scale * height + 2 * _GAP
    columns = min(count, max(1, 1000 // cell_width))
    title_font, font = ImageFont.load_default(20), ImageFont.load_default(13)
    probe = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    text_width = max(probe.textlength(title, title_font), probe.textlength(subtitle, font))
    page_width = max(columns * cell_width, int(text_width) + 1) + 2 * _MARGIN
    top = _MARGIN + 62
    page = Image.new("RGB", (page_width, top + -(-count // columns) * cell_height + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, _MARGIN - 4), title, _INK, title_font)
    draw.text((_MARGIN, _MARGIN + 26), subtitle, _FAINT, font)
    for i in range(count):
        place = _MARGIN + i % columns * cell_width, top + i // columns * cell_height
        page.paste(to_pil(images[i], scale), place)
    return page


def curve_png(values: Sequence[float], title: str, axes: tuple[str, str], path: Path) -> None:
    """A noisy curve on a logarithmic axis, with its running median over a hundredth of its length.

    Args:
        values: positive numbers, at 1, 2, ...
        title: of the picture.
        axes: names of the horizontal and the vertical axis.
        path: where the PNG goes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    y = torch.tensor(values, dtype=torch.float64)
    panel.semilogy(range(1, len(y) + 1), y, color="#c9d3e0", linewidth=0.8)
    span = max(1, len(y) // 100)
    smooth = y.unfold(0, span, 1).median(-1).values
    panel.semilogy([i + span / 2 + 0.5 for i in range(len(smooth))], smooth, color="#0b3c7d", linewidth=1.8)
    panel.set_xlabel(axes[0])
    panel.set_ylabel(axes[1])
    panel.set_title(title, loc="left")
    panel.grid(axis="y", which="both", color="#e4e4e8", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    write(path, lambda temporary: figure.savefig(temporary, dpi=110))


def save_png(picture: "Image.Image", path: str | Path) -> None:
    """Write a PNG, whole or not at all."""
    write(path, lambda temporary: picture.save(temporary, format="PNG"))
