"""The folder of a benchmark: everything measured so far, saved cell by cell."""

from pathlib import Path
from typing import Any

from patchmosaic.bench import picture, report
from patchmosaic.bench.plan import Cell
from patchmosaic.errors import InputError
from patchmosaic.records import differences, read_json, usable, write_csv, write_json, write_text

RESULTS = ("bench.json", "bench.csv", "bench.md", "bench.png", "slopes.png")


class Store:
    """A benchmark's record, and where it is kept.

    Args:
        folder: where ``bench.json`` is kept; None to keep the record in memory only.
        origin: what the results depend on.
    """

    def __init__(self, folder: Path | None, origin: dict[str, Any]):
        self.folder, self.origin = folder, origin
        self.record: dict[str, Any] = {
            **origin,
            "peaks": None,
            "cells": [],
            "slopes": None,
            "complete": False,
        }

    def open(self, resume: bool, overwrite: bool) -> bool:
        """Take over what the folder holds; returns whether that is complete.

        Raises:
            InputError: where going on would lose or mix somebody's results.
        """
        if self.folder is None:
            if resume or overwrite:
                raise InputError("--resume and --overwrite are about a folder: name it with --out")
            return False
        path = self.folder / "bench.json"
        with usable(self.folder):
            if self.folder.exists() and not self.folder.is_dir():
                raise InputError(f"{self.folder} is a file; choose a folder with --out")
            if path.exists() and overwrite:
                for name in RESULTS:
                    (self.folder / name).unlink(missing_ok=True)
            elif path.exists():
                return self._take_over(read_json(path), resume)
            elif resume:
                raise InputError(f"nothing to resume in {self.folder}: no benchmark was started there")
            elif self.folder.exists() and any(self.folder.iterdir()):
                raise InputError(f"{self.folder} holds other files; choose an empty or new folder with --out")
            self.folder.mkdir(parents=True, exist_ok=True)  # or it would fail after the first measurement
        return False

    def _take_over(self, found: Any, resume: bool) -> bool:
        if not isinstance(found, dict) or not self.record.keys() <= found.keys():
            raise InputError(f"{self.folder}/bench.json is not a benchmark's record: --overwrite it")
        different = differences(found, self.origin)
        if different:
            raise InputError(
                f"{self.folder} holds a benchmark with other settings ({different}): "
                "repeat its command, choose another --out, or --overwrite it"
            )
        if not found["complete"] and not resume:
            raise InputError(f"{self.folder} holds an unfinished benchmark: --resume it, or --overwrite it")
        self.record = found
        return bool(found["complete"])

    def has(self, cell: Cell) -> bool:
        """Whether a cell was measured already."""
        return any(tuple(done[key] for key in Cell._fields) == cell for done in self.record["cells"])

    def save(self) -> None:
        """Write ``bench.json``."""
        if self.folder is not None:
            write_json(self.folder / "bench.json", self.record)

    def finish(self) -> list[Path]:
        """Mark the record complete and write everything that is made from it; returns what was written."""
        self.record["complete"] = True
        if self.folder is None:
            return []
        self.save()
        write_csv(self.folder / "bench.csv", report.Row._fields, report.rows(self.record))
        write_text(self.folder / "bench.md", report.markdown(self.record))
        picture.save(self.record, self.folder)
        return [path for path in (self.folder / name for name in RESULTS) if path.exists()]
