"""``report.html``: the verdicts and the evidence in one file that fetches nothing."""

from html import escape
from typing import Any

from patchmosaic.auditing.pictures import panels
from patchmosaic.auditing.run import Run
from patchmosaic.auditing.verdict import VERDICTS, Report
from patchmosaic.comparison.html import listed, pixels, row

_SHOWN = 60  # pictures of a verdict whose evidence is drawn
_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1e; max-width: 1120px; margin: 0 auto; padding: 24px 16px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .4em; } h2 { font-size: 1.2rem; margin: 2em 0 .4em; }
p { margin: .4em 0; max-width: 46em; } .faint, figcaption span, th { color: #62626a; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88rem; margin: .6em 0; }
th, td { text-align: right; white-space: nowrap; padding: .3em .6em; border-bottom: 1px solid #e4e4e8; }
th { font-weight: 400; } th:first-child, td:first-child { text-align: left; padding-left: 0; }
.wide { overflow: auto; max-height: 32em; } .wide th { position: sticky; top: 0; background: #fff; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 20px 28px; margin: 1em 0; }
figure { margin: 0; } .three { display: grid; grid-template-columns: repeat(3, 1fr); gap: 4px; }
.pixels { display: block; image-rendering: pixelated; width: 100%; outline: 1px solid #e4e4e8; outline-offset: -1px; }
figcaption { font-size: .8rem; line-height: 1.4; margin-top: 4px; }
.counts { display: flex; flex-wrap: wrap; gap: 4px 36px; margin: 1em 0; } .counts strong { font-size: 1.7rem; }
.counts span { display: block; color: #62626a; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .2em 1.2em; font-size: .92rem; }
dt { color: #62626a; } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 560px) { table { font-size: .78rem; } th, td { padding: .3em .3em; } }
"""
_NAMES = {"copy": "Copies", "partial copy": "Partial copies", "mosaic": "Mosaics"}


def report(run: Run, reports: list[Report], found: dict[str, Any]) -> str:
    """The page."""
    galleries = (_gallery(run, reports, verdict) for verdict in VERDICTS)
    parts = (_headline(run, found), *galleries, _sizes(reports), _every(run, reports), _settings(run))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>Copies of {escape(run.data.name)}</title>\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style></head>\n<body>\n{''.join(parts)}</body></html>\n"
    )


def _headline(run: Run, found: dict[str, Any]) -> str:
    limit, window = found["threshold"], run.window
    counts = "".join(
        f"<div><strong>{count}</strong><span>{_NAMES[verdict].lower()}</span></div>"
        for verdict, count in found["verdicts"].items()
    )
    origin = (
        "held-out pictures" if run.settings.held_out else "training images, each compared with all others"
    )
    aside = (
        f" {limit['duplicates']} more were copies themselves and left aside." if limit["duplicates"] else ""
    )
    return (
        f"<h1>What {len(run.pictures):,} pictures copy from {escape(run.data.name)}</h1>\n"
        f'<div class="counts">{counts}</div>\n'
        f"<p>Every textured {window} × {window} window was looked up among all windows of {len(run.data):,} training "
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
        f'<figure><div class="three">{images}</div><figcaption>picture {i}: {one.score:.0%} from image {source}{moved}'
        f"<br><span>{largest.area} pixels; in all {_number(len(one.fragments), 'fragment')} of "
        f"{_number(one.sources, 'image')}</span></figcaption></figure>"
    )


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


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
    head = row("", *(f"{size} × {size}" for size in sizes), "sources", cell="th")
    return (
        '<h2>By size of window</h2>\n<p class="faint">Share of the textured windows that are copied whole from one '
        'place, and number of training images used; means over the pictures.</p>\n<div class="wide"><table>'
        f"<thead>{head}</thead><tbody>{''.join(lines)}</tbody></table></div>\n"
    )


def _every(run: Run, reports: list[Report]) -> str:
    lines = []
    for i, one in enumerate(reports):
        largest = one.fragments[0] if one.fragments else None
        source = "" if largest is None else str(int(run.data.indices[largest.image]))
        area = "" if largest is None else str(largest.area)
        lines.append(row(str(i), one.verdict, f"{one.score:.3f}", area, source, str(one.sources)))
    head = row("picture", "verdict", "score", "largest", "from image", "sources", cell="th")
    return (
        '<h2>Every picture</h2>\n<p class="faint">pictures.csv holds more columns, report.json every fragment.</p>\n'
        f'<div class="wide"><table><thead>{head}</thead><tbody>{"".join(lines)}</tbody></table></div>\n'
    )


def _settings(run: Run) -> str:
    record = run.files.record
    items: list[tuple[str, Any]] = [(k, v) for k, v in record["config"].items() if v is not None]
    items += [
        (f"{name}'s SHA-256", record[name]["fingerprint"])
        for name in ("data", "pictures", "network", "held_out")
        if name in record
    ]
    items += list(record["versions"].items())
    inside = "".join(f"<dt>{escape(name)}</dt><dd>{escape(listed(value))}</dd>" for name, value in items)
    return f"<h2>Settings</h2>\n<dl>{inside}</dl>\n"
