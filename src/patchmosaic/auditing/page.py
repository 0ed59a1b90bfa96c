"""``report.html``: the verdicts and the evidence in one file that fetches nothing."""

from html import escape
from typing import Any

from patchmosaic.auditing.fragments import Fragment
from patchmosaic.auditing.pictures import panels
from patchmosaic.auditing.run import Run
from patchmosaic.auditing.search import stride
from patchmosaic.auditing.verdict import VERDICTS, Report
from patchmosaic.html import document, named, pixels, row, settings, table
from patchmosaic.words import counted

_SHOWN = 60  # pictures of a verdict whose evidence is drawn
_STYLE = """\
.wide { overflow: auto; max-height: 32em; } .wide th { position: sticky; top: 0; background: #fff; }
.gallery { grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 20px 28px; }
.three { display: grid; grid-template-columns: repeat(3, 1fr); gap: 4px; }
.pixels { outline: 1px solid #e4e4e8; outline-offset: -1px; }
.counts { display: flex; flex-wrap: wrap; gap: 4px 36px; margin: 1em 0; } .counts strong { font-size: 1.7rem; }
.counts span { display: block; color: #62626a; }
"""
_NAMES = {"copy": "Copies", "partial copy": "Partial copies", "mosaic": "Mosaics"}


def report(run: Run, reports: list[Report], found: dict[str, Any]) -> str:
    """The page."""
    galleries = (_gallery(run, reports, verdict) for verdict in VERDICTS)
    parts = (_headline(run, found), *galleries, _sizes(reports), _every(run, reports), _settings(run))
    return document(f"Copies of {run.data.name}", _STYLE, "".join(parts))


def _headline(run: Run, found: dict[str, Any]) -> str:
    limit, window = found["threshold"], run.window
    which = "In each direction every other" if stride(window) == 2 else "Every"
    names = {verdict: name.lower() for verdict, name in _NAMES.items()}
    if found["nothing_copied"]:
        names["mosaic"] += f", {found['nothing_copied']} without any copied part"
    counts = "".join(
        f"<div><strong>{count}</strong><span>{names[verdict]}</span></div>"
        for verdict, count in found["verdicts"].items()
    )
    origin = (
        "held-out pictures" if run.settings.held_out else "training images, each compared with all others"
    )
    aside = (
        f" {limit['duplicates']} more were copies themselves and left aside." if limit["duplicates"] else ""
    )
    return (
        f"<h1>What {_copy(len(run.pictures))} from {escape(run.data.name)}</h1>\n"
        f'<div class="counts">{counts}</div>\n'
        f"<p>{which} textured {window} × {window} window was looked up among all windows of {len(run.data):,} training "
        "images; a fragment is a connected part copied from one of them at one offset. <strong>Copy</strong>: the "
        f"largest fragment holds at least {found['copy_from']:.0%} of the texture, the picture's or the source's. "
        f"<strong>Partial copy</strong>: it holds more than {limit['score']:.1%}, as at most 1 % of real pictures do "
        f"(confidence {limit['confidence']:.0%}, from {limit['pictures']} {origin}). "
        f"<strong>Mosaic</strong>: anything else.{aside}</p>\n"
    )


def _gallery(run: Run, reports: list[Report], verdict: str) -> str:
    every = [i for i, one in enumerate(reports) if one.verdict == verdict]
    some = sorted((i for i in every if reports[i].fragments), key=lambda i: -reports[i].score)[:_SHOWN]
    if not some:
        return ""
    remark = f", {len(some)} of {len(every)} shown" if len(some) < len(every) else ""
    figures = "".join(_figure(run, i, reports[i]) for i in some)
    return (
        f"<h2>{_NAMES[verdict]}</h2>\n<p>The picture; the training image with the copied part lit; their difference "
        f'there, four times enlarged. <span class="faint">The largest fragment of each, most copied first{remark}.'
        f'</span></p>\n<div class="gallery">{figures}</div>\n'
    )


def _figure(run: Run, i: int, one: Report) -> str:
    largest = one.fragments[0]
    drawn = panels(run.pictures[i], run.training, largest)
    source = int(run.data.indices[largest.image])
    names = (f"Picture {i}", f"Training image {source}, copied part lit", "Difference")
    images = "".join(pixels(panel, name) for panel, name in zip(drawn, names, strict=True))
    dy, dx = largest.offset
    moved = f" at offset ({dy:+d}, {dx:+d})" if (dy, dx) != (0, 0) else ""
    return (
        f'<figure><div class="three">{images}</div><figcaption>picture {named(i, run.name_of(i))}: '
        f"{one.score:.0%} from image {_source(run, largest)}{moved}<br><span>{counted(largest.area, 'pixel')}; in all "
        f"{counted(len(one.fragments), 'fragment')} of {counted(one.sources, 'image')}</span></figcaption></figure>"
    )


def _source(run: Run, one: Fragment) -> str:
    return named(int(run.data.indices[one.image]), run.data.name_of(one.image))


def _copy(pictures: int) -> str:
    return f"{counted(pictures, 'picture')} {'copies' if pictures == 1 else 'copy'}"


def _sizes(reports: list[Report]) -> str:
    """The share of copied windows by their size."""
    sizes = list(reports[0].shares)
    lines = []
    for verdict in VERDICTS:
        some = [one for one in reports if one.verdict == verdict]
        if some:
            means = (sum(one.shares[size] for one in some) / len(some) for size in sizes)
            sources = sum(one.sources for one in some) / len(some)
            lines.append(row(_NAMES[verdict], *(f"{mean:.1%}" for mean in means), f"{sources:.1f}"))
    heads = ("", *(f"{size} × {size}" for size in sizes), "sources")
    return (
        '<h2>By size of window</h2>\n<p class="faint">Share of the textured windows that are copied whole from one '
        "place, and number of training images used; means over the pictures.</p>\n"
        f'<div class="wide">{table(heads, lines)}</div>\n'
    )


def _every(run: Run, reports: list[Report]) -> str:
    lines = []
    for i, one in enumerate(reports):
        largest = one.fragments[0] if one.fragments else None
        source = "" if largest is None else _source(run, largest)
        area = "" if largest is None else str(largest.area)
        lines.append(
            row(named(i, run.name_of(i)), one.verdict, f"{one.score:.3f}", area, source, str(one.sources))
        )
    heads = ("picture", "verdict", "score", "largest", "from image", "sources")
    return (
        '<h2>Every picture</h2>\n<p class="faint">pictures.csv holds more columns, report.json every fragment.</p>\n'
        f'<div class="wide">{table(heads, lines)}</div>\n'
    )


def _settings(run: Run) -> str:
    record = run.files.record
    prints = (
        (f"SHA-256 of {name.replace('_', ' ')}", record[name]["fingerprint"])
        for name in ("data", "pictures", "network", "held_out")
        if name in record
    )
    return settings([*record["config"].items(), *prints, *record["versions"].items()])
