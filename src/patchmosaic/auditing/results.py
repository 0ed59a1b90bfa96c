"""What an audit leaves in its folder, and what the terminal shows."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from patchmosaic.auditing import page
from patchmosaic.auditing.run import Run
from patchmosaic.auditing.settings import SAMPLES
from patchmosaic.auditing.verdict import COPY, VERDICTS, Report, Threshold
from patchmosaic.records import write_csv, write_json, write_tensors, write_text
from patchmosaic.words import counted

COLUMNS = (
    *("picture", "file", "verdict", "score", "fragments", "sources"),
    *("row", "source_file", "dy", "dx", "area", "top", "left", "bottom", "right"),
)


def write_results(run: Run, reports: list[Report], limit: Threshold) -> None:
    """Write everything that ``run.files`` promises, and clear up."""
    folder = run.files.path
    found = summary(run, reports, limit)
    shares = [f"copied_{size}" for size in reports[0].shares]
    write_csv(folder / "pictures.csv", [*COLUMNS, *shares], _rows(run, reports))
    write_text(folder / "report.html", page.report(run, reports, found))
    if run.drawing is not None:
        write_tensors(folder / SAMPLES, {"images": run.pictures})
    write_json(folder / "report.json", found)
    run.files.close()


def summary(run: Run, reports: list[Report], limit: Threshold) -> dict[str, Any]:
    """Everything but the pictures."""
    counts = Counter(report.verdict for report in reports)
    return {
        "verdicts": {verdict: counts[verdict] for verdict in VERDICTS},
        "nothing_copied": sum(not report.fragments for report in reports),
        "copy_from": COPY,
        "threshold": asdict(limit),
        "window": run.window,
        "pictures": [_described(run, i, report) for i, report in enumerate(reports)],
    }


def _described(run: Run, i: int, report: Report) -> dict[str, Any]:
    return {
        **_file("file", run.name_of(i)),
        "verdict": report.verdict,
        "score": report.score,
        "textured": report.textured,
        "sources": report.sources,
        "shares": report.shares,
        "fragments": [
            {
                "row": int(run.data.indices[one.image]),
                **_file("source_file", run.data.name_of(one.image)),
                "offset": one.offset,
                "area": one.area,
                "box": one.box,
            }
            for one in report.fragments
        ],
    }


def _file(key: str, name: str) -> dict[str, str]:
    return {key: name} if name else {}


def _rows(run: Run, reports: list[Report]) -> Iterator[list[Any]]:
    """A line for each picture, with its largest fragment."""
    for i, report in enumerate(reports):
        place: list[Any] = [""] * 9
        if report.fragments:
            one = report.fragments[0]
            source = int(run.data.indices[one.image]), run.data.name_of(one.image)
            place = [*source, *one.offset, one.area, *one.box]
        shares = [f"{share:.4f}" for share in report.shares.values()]
        counts = len(report.fragments), report.sources
        yield [i, run.name_of(i), report.verdict, f"{report.score:.4f}", *counts, *place, *shares]


def said(found: dict[str, Any]) -> str:
    """The outcome in a few lines."""
    total, limit = sum(found["verdicts"].values()), found["threshold"]
    counts = ", ".join(f"{found['verdicts'][verdict]} {verdict}" for verdict in VERDICTS)
    none = f" ({found['nothing_copied']} of them without any copied part)" if found["nothing_copied"] else ""
    return (
        f"{counted(total, 'picture')}: {counts}{none}\n"
        f"partial copy: one fragment holds more than {limit['score']:.1%} of the texture, as at most 1 % of real "
        f"pictures do (confidence {limit['confidence']:.0%}, from {limit['pictures']} of them)"
    )
