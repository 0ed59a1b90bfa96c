"""Pages that are one file and fetch nothing, and their pieces."""

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

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1e; max-width: 1120px; margin: 0 auto; padding: 24px 16px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4em; } h2 { font-size: 1.2rem; margin: 2em 0 .4em; }
p { margin: .4em 0; max-width: 46em; } .faint, figcaption span, th { color: #62626a; }
img { display: block; } .pixels { image-rendering: pixelated; width: 100%; }
figure { margin: 0; } figcaption { font-size: .77rem; line-height: 1.35; margin-top: 4px; }
.gallery { display: grid; margin: 1em 0; }
.side { display: flex; flex-wrap: wrap; gap: 8px 36px; align-items: flex-start; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88rem; margin: .6em 0; }
.wide { overflow-x: auto; } caption { text-align: left; font-weight: 600; padding: 0 0 .3em; }
th, td { text-align: right; white-space: nowrap; padding: .3em .6em; border-bottom: 1px solid #e4e4e8; }
th { font-weight: 400; } th:first-child, td:first-child { text-align: left; padding-left: 0; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .2em 1.2em; font-size: .92rem; }
dt { color: #62626a; } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 560px) { table { font-size: .78rem; } th, td { padding: .3em; } }
"""
_FILES = """\
.file { color: #62626a; white-space: pre-wrap; overflow-wrap: break-word; }
td .file { display: inline-block; max-width: 24em; vertical-align: top; text-align: left; }
"""


def document(title: str, style: str, body: str) -> str:
    """A page.

    Args:
        title: plain text.
        style: CSS that is added to what all pages share.
        body: HTML.
    """
    style += _FILES if 'class="file"' in body else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}{style}</style></head>\n<body>\n{body}</body></html>\n"
    )


def settings(items: Iterable[tuple[str, Any]]) -> str:
    """The section that names what was chosen; None is nothing chosen."""
    inside = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(listed(value))}</dd>"
        for name, value in items
        if value is not None
    )
    return f"<h2>Settings</h2>\n<dl>{inside}</dl>\n"


def table(heads: Iterable[str], lines: Iterable[str], caption: str = "", kind: str = "") -> str:
    """Lines under their heads."""
    above = f"<caption>{caption}</caption>" if caption else ""
    return f"<table{_of(kind)}>{above}<thead>{row(*heads, cell='th')}</thead><tbody>{''.join(lines)}</tbody></table>"


def row(*cells: str, cell: str = "td", kind: str = "") -> str:
    """A line of a table."""
    inside = "".join(f"<{cell}>{text}</{cell}>" for text in cells)
    return f"<tr{_of(kind)}>{inside}</tr>"


def _of(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def listed(value: Any) -> str:
    """1, 2, 3; anything else as it is."""
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return str(value)


def named(number: int | str, name: str) -> str:
    """The number of an image and the name of its file, of any length, if there is one."""
    return f'{number} <span class="file">{escape(name)}</span>' if name else str(number)


def pixels(image: Float[Tensor, "c h w"], alt: str) -> str:
    """An image as one small picture, to be enlarged by the browser."""
    return f'<img class="pixels" alt="{escape(alt)}" src="{uri(png(to_pil(image)))}">'


def png(picture: "Image.Image") -> bytes:
    """What a file would hold."""
    content = io.BytesIO()
    picture.save(content, format="PNG")
    return content.getvalue()


def uri(content: bytes) -> str:
    """A PNG inside the page."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
