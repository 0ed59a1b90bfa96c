"""``explain.html``: the whole explanation in one file that fetches nothing."""

from html import escape
from typing import TYPE_CHECKING, Any

from patchmosaic.html import document, named, row, settings, table, uri
from patchmosaic.presets import short
from patchmosaic.words import counted

if TYPE_CHECKING:
    from patchmosaic.explanation.run import Explanation, Run

_STYLE = """\
img { width: 100%; height: auto; } .wide img { min-width: 620px; } .wide img.narrow { max-width: 760px; min-width: 0; }
"""
_ROWS = 8  # fragments listed


def page(run: "Run", explanation: "Explanation", summary: dict[str, Any]) -> str:
    """The page; its pictures are the files that are already in the folder."""
    title = f"Where the pixels of {run.subject.caption} come from"
    parts = (
        f"<h1>{escape(title)}</h1>\n{_headline(run, summary)}",
        _section("Mosaic", _MOSAIC, run, "mosaic.png"),
        _fragments(run, explanation),
        _section("From noise to picture", _FLOW, run, "steps.png"),
        _section("Belief", _BELIEF, run, "belief.png", "narrow"),
        _section("Local consistency", _CONSISTENCY, run, "consistency.png", "narrow"),
        _settings(run),
    )
    return document(title, _STYLE, "".join(parts))


_MOSAIC = (
    "Each pixel is given to the training patch nearest to the window around it. Neighbouring pixels from the same "
    "training image at the same offset form a fragment; where several patches are equally near, as in flat areas, "
    "nobody can tell. Left, "
    "the picture with the borders of its fragments; in the middle, each pixel in the colour of its training image; "
    "right, the images that most pixels come from, pale but for the parts used, which are outlined."
)
_FLOW = (
    "At every step the machine guesses the clean picture as a mean of training patches. White in the third line: no "
    "single patch holds the majority of the pixel's belief. The last line counts the patches that share it."
)
_BELIEF = (
    "The exponential of the entropy of a pixel's posterior weights: how many training patches it believes in."
)
_CONSISTENCY = (
    "As noise vanishes, every pixel of a local machine's picture becomes the centre of the training patch that is "
    "nearest to its window (Kamb &amp; Ganguli 2025, theorem 4.1). Marked: where it is not."
)


def _headline(run: "Run", summary: dict[str, Any]) -> str:
    lines = []
    for name, found in summary.items():
        source = ""
        for largest in found["largest_source"]:
            number = named(f"{largest['image']:,}", largest.get("source_file", ""))
            source = f", {largest['pixels']} of them from no. {number}"
        lines.append(
            f"<p><strong>{escape(short(name))}</strong>: {counted(found['pixels'], 'pixel')}, "
            f"{counted(found['fragments'], 'fragment')} from {counted(found['sources'], 'training image')} "
            f"of {escape(run.subject.data.name)}{source}; "
            f"{100 * found['ambiguous_share']:.0f}&nbsp;% could be from several.</p>\n"
        )
    return "".join(lines)


def _section(title: str, text: str, run: "Run", picture: str, kind: str = "") -> str:
    image = f'<img class="{kind}" alt="{title}" src="{uri((run.files.path / picture).read_bytes())}">'
    return f'<h2>{title}</h2>\n<p class="faint">{text}</p>\n<div class="wide">{image}</div>\n'


def _fragments(run: "Run", explanation: "Explanation") -> str:
    data, parts = run.subject.data, []
    for name, found in explanation.mosaics.items():
        lines = [
            row(
                named(f"{int(data.indices[part.image]):,}", data.name_of(part.image)),
                "" if data.labels is None else escape(data.class_names[int(data.labels[part.image])]),
                str(part.size),
                f"{part.down:+d}, {part.right:+d}",
                f"{part.box[0]}–{part.box[1]}",
                f"{part.box[2]}–{part.box[3]}",
            )
            for part in found.fragments[:_ROWS]
        ]
        more = len(found.fragments) - len(lines)
        heads = ("training image", "class", "pixels", "offset (rows, columns)", "rows", "columns")
        rest = f'<p class="faint">and {more} more in fragments.csv</p>' if more > 0 else ""
        parts.append(f'<div class="wide">{table(heads, lines, escape(short(name)))}{rest}</div>\n')
    return f'<h2>Largest fragments</h2>\n<div class="side">{"".join(parts)}</div>\n'


def _settings(run: "Run") -> str:
    record = run.files.record
    items = [*record["config"].items(), *record["subject"].items(), ("data", record["data"]["name"])]
    items.append(("data's SHA-256", record["data"]["fingerprint"]))
    return settings([*items, *record["versions"].items()])
