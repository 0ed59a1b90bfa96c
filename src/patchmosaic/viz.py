"""Pictures: small images enlarged without blur, side by side, with captions."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from patchmosaic.data.pixels import as_bytes
from patchmosaic.plots import FAINT, INK, PAPER
from patchmosaic.records import write

if TYPE_CHECKING:
    from PIL import Image

_GAP, _PAIR_GAP, _MARGIN, _LINE = 4, 20, 20, 17
_LIGHT_GREY = 0.76


def to_pil(image: Float[Tensor, "c h w"], scale: int = 1) -> "Image.Image":
    """One image in [-1, 1], clamped, with every pixel drawn ``scale`` pixels wide."""
    from PIL import Image

    pixels = as_bytes(image.detach().cpu().double())
    array = pixels.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array).resize(
        (array.shape[1] * scale, array.shape[0] * scale), Image.Resampling.NEAREST
    )


def spotlight(image: Float[Tensor, "c h w"], lit: Bool[Tensor, "h w"]) -> Float[Tensor, "c h w"]:
    """An image in [-1, 1], as it is where it is lit; elsewhere three quarters of light grey hide it."""
    return torch.where(lit, image, 0.25 * image + 0.75 * _LIGHT_GREY)


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
    from PIL import Image, ImageDraw

    count, _, height, width = left.shape
    scale = max(1, 96 // max(height, width))
    cell_width, cell_height = 2 * scale * width + _GAP, scale * height
    rows = -(-count // max(1, 1000 // (cell_width + _PAIR_GAP)))
    columns = -(-count // rows)
    lines = max(len(caption) for caption in captions)
    row_height = cell_height + lines * _LINE + _PAIR_GAP
    title_font, font = typeface(18), typeface(12)
    probe = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    text_width = max(probe.textlength(title, title_font), probe.textlength(subtitle, font))
    page_width = max(columns * (cell_width + _PAIR_GAP) - _PAIR_GAP, int(text_width) + 1) + 2 * _MARGIN
    top = _MARGIN + 62
    page = Image.new("RGB", (page_width, top + rows * row_height + _MARGIN - _PAIR_GAP), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, _MARGIN - 4), title, INK, title_font)
    draw.text((_MARGIN, _MARGIN + 26), subtitle, FAINT, font)
    for i in range(count):
        x = _MARGIN + i % columns * (cell_width + _PAIR_GAP)
        y = top + i // columns * row_height
        page.paste(to_pil(left[i], scale), (x, y))
        page.paste(to_pil(right[i], scale), (x + scale * width + _GAP, y))
        for line, text in enumerate(captions[i]):
            draw.text((x, y + cell_height + 3 + line * _LINE), text, FAINT if line else INK, font)
    return page


def grid(
    images: Float[Tensor, "b c h w"], title: str, subtitle: str, columns: int | None = None
) -> "Image.Image":
    """Pictures in [-1, 1] side by side, so many in a line, or as many as take about 1,000 pixels."""
    from PIL import Image, ImageDraw

    count, _, height, width = images.shape
    scale = max(1, 96 // max(height, width))
    cell_width, cell_height = scale * width + 2 * _GAP, scale * height + 2 * _GAP
    columns = columns or min(count, max(1, 1000 // cell_width))
    title_font, font = typeface(18), typeface(12)
    probe = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    text_width = max(probe.textlength(title, title_font), probe.textlength(subtitle, font))
    page_width = max(columns * cell_width, int(text_width) + 1) + 2 * _MARGIN
    top = _MARGIN + 62
    page = Image.new("RGB", (page_width, top + -(-count // columns) * cell_height + _MARGIN), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, _MARGIN - 4), title, INK, title_font)
    draw.text((_MARGIN, _MARGIN + 26), subtitle, FAINT, font)
    for i in range(count):
        place = _MARGIN + i % columns * cell_width, top + i // columns * cell_height
        page.paste(to_pil(images[i], scale), place)
    return page


@cache
def typeface(size: int) -> Any:
    """That of the plots, at a size in pixels, which has the letters of more names than Pillow's own."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


def save_png(picture: "Image.Image", path: str | Path) -> None:
    """Write a PNG, whole or not at all."""
    write(path, lambda temporary: picture.save(temporary, format="PNG"))
