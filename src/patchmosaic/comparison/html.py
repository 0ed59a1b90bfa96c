"""Pieces of a page."""

import base64
import io
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from patchmosaic.viz import to_pil

if TYPE_CHECKING:
    from PIL import Image


def row(*cells: str, cell: str = "td", kind: str = "") -> str:
    """A line of a table."""
    inside = "".join(f"<{cell}>{text}</{cell}>" for text in cells)
    return f'<tr class="{kind}">{inside}</tr>' if kind else f"<tr>{inside}</tr>"


def listed(value: Any) -> str:
    """1, 2, 3; anything else as it is."""
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return str(value)


def pixels(image: Float[Tensor, "c h w"], alt: str) -> str:
    """An image as one small picture, to be enlarged by the browser."""
    return f'<img class="pixels" alt="{escape(alt)}" src="{uri(to_pil(image))}">'


def uri(picture: "Image.Image") -> str:
    """A picture inside the page."""
    content = io.BytesIO()
    picture.save(content, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
