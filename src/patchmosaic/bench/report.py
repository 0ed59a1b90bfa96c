"""What was measured, as a table on the terminal, in CSV and in markdown."""

from collections.abc import Iterator
from statistics import median
from typing import Any, NamedTuple

from patchmosaic.bench.measure import Entry
from patchmosaic.bench.problem import useful_operations


class Row(NamedTuple):
    """One contestant in one cell.

    Attributes:
        data: name of the data set.
        machine: "ls", "els" or "bbels".
        window: P.
        level: time t of the authors' cosine schedule.
        contestant: engine or rival.
        images: training images used.
        chunk: images at a time; None where there are no chunks.
        pairs: pairs of pixel and patch in one call.
        rate: pairs per second, by the median of the repeats.
        best_rate: by the fastest repeat.
        over_published: rate over that of the published algorithm; None where that did not run.
        best_over_published: the same of the best rates.
        over_dense: rate over that of the dense engine.
        best_over_dense: the same of the best rates.
        max_error: largest |D - D in float64|.
        checked_images: over how many training images that was compared.
        fma_share: useful multiply-adds per second over the computer's peak.
        exp_share: exponentials per second, one for a pair, over the computer's peak.
        memory: peak bytes above what the images take; None if not measured.
    """

    data: str
    machine: str
    window: int
    level: float
    contestant: str
    images: int
    chunk: int | None
    pairs: int
    rate: float
    best_rate: float
    over_published: float | None
    best_over_published: float | None
    over_dense: float | None
    best_over_dense: float | None
    max_error: float
    checked_images: int
    fma_share: float
    exp_share: float
    memory: int | None


def rows(record: dict[str, Any]) -> Iterator[Row]:
    """The rows of a record, cell by cell."""
    peaks = record["peaks"]
    for cell in record["cells"]:
        entries = [Entry(**entry) for entry in cell["entries"]]
        bases = {entry.contestant: entry for entry in entries}
        for entry in entries:
            over_published, best_over_published = _ratios(entry, bases.get("published"))
            over_dense, best_over_dense = _ratios(entry, bases.get("dense"))
            yield Row(
                data=cell["name"],
                machine=cell["machine"],
                window=cell["window"],
                level=cell["level"],
                contestant=entry.contestant,
                images=entry.images,
                chunk=entry.chunk,
                pairs=entry.pairs,
                rate=entry.rate,
                best_rate=entry.best_rate,
                over_published=over_published,
                best_over_published=best_over_published,
                over_dense=over_dense,
                best_over_dense=best_over_dense,
                max_error=entry.max_error,
                checked_images=entry.checked_images,
                fma_share=entry.rate * useful_operations(cell["channels"]) / peaks["fma_per_second"],
                exp_share=entry.rate / peaks["exp_per_second"],
                memory=entry.memory,
            )


def _ratios(entry: Entry, base: Entry | None) -> tuple[float | None, float | None]:
    if base is None:
        return None, None
    return entry.rate / base.rate, entry.best_rate / base.best_rate


_HEADER = (
    *("data", "machine", "P", "t", "contestant", "images", "M pairs/s"),
    *("x published", "x dense", "max error", "FMA", "exp", "MiB"),
)
_WORDS = 5  # columns of text, aligned left in markdown


def _cells_of(row: Row) -> tuple[str, ...]:
    return (
        row.data,
        row.machine,
        str(row.window),
        f"{row.level:g}",
        row.contestant,
        f"{row.images:,}",
        _number(row.rate / 1e6),
        _both(row.over_published, row.best_over_published),
        _both(row.over_dense, row.best_over_dense),
        f"{row.max_error:.0e}",
        f"{row.fma_share:.1%}",
        f"{row.exp_share:.1%}",
        "" if row.memory is None else _number(row.memory / 2**20),
    )


def _both(ratio: float | None, best: float | None) -> str:
    return "" if ratio is None or best is None else f"{_number(ratio)} ({_number(best)})"


def _number(value: float) -> str:
    """At most two decimals, and none from 100 on."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def table(record: dict[str, Any]) -> str:
    """Aligned text: a paragraph for each cell, then the reasons of those left out, slopes and the computer."""
    lines = [_HEADER, *map(_cells_of, rows(record))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = []
    for previous, line in zip([_HEADER, *lines], lines, strict=False):
        if line[:4] != previous[:4]:
            text.append("")
        padded = (
            item.ljust(width) if i in (0, 1, 4) else item.rjust(width)
            for i, (item, width) in enumerate(zip(line, widths, strict=True))
        )
        text.append("  ".join(padded).rstrip())
    return "\n".join([*text, "", *notes(record)])


def markdown(record: dict[str, Any]) -> str:
    """The table in markdown, with the notes as a list."""
    rule = tuple("---" if i < _WORDS else "--:" for i in range(len(_HEADER)))
    lines = [_HEADER, rule, *map(_cells_of, rows(record))]
    text = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([*text, "", *(f"- {note}" for note in notes(record)), ""])


def notes(record: dict[str, Any]) -> list[str]:
    """Under what conditions the numbers hold, a line each."""
    peaks, config = record["peaks"], record["config"]
    spread = [max(s) / median(s) for cell in record["cells"] for s in _seconds(cell)]
    lines = [
        "Ratios are of medians over the repeats, and in brackets of the fastest repeats.",
        f"{record['work']['cpu']}, {record['work']['capability']}, threads: {config['threads']}; "
        f"torch {record['versions']['torch']}, patchmosaic {record['versions']['patchmosaic']}",
        f"peaks: {peaks['fma_per_second'] / 1e9:.1f} G multiply-adds/s, "
        f"{peaks['exp_per_second'] / 1e9:.2f} G exponentials/s",
    ]
    if spread:
        lines.append(f"the slowest repeat took at most {max(spread):.2f} times the median")
    reasons = {item for cell in record["cells"] for item in cell["left_out"].items()}
    lines += [f"{name} was left out: {reason}" for name, reason in sorted(reasons)]
    for found in record["slopes"] or ():
        lines.append(
            f"box engine, time against {found['axis']}: slope {_slope(found['slope'])}; "
            f"pairs: slope {_slope(found['pairs_slope'])}"
        )
    return lines


def _seconds(cell: dict[str, Any]) -> Iterator[list[float]]:
    for entry in cell["entries"]:
        yield entry["seconds"]


def _slope(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"
