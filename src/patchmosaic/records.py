"""Files that are either whole or not there, and the versions a result depends on."""

import csv
import io
import json
import os
import platform
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from patchmosaic.errors import InputError, refusing

RECORD, UNFINISHED = "run.json", "unfinished"
DAMAGED = "choose another folder, or make that run again with --overwrite"


def write(path: str | Path, save: Callable[[Path], object]) -> None:
    """Call ``save`` with a temporary path beside ``path``, then rename: a failure leaves nothing half done."""
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary.is_file():
            temporary.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write text as UTF-8; what names of files hold beside it is escaped."""
    write(path, lambda temporary: temporary.write_bytes(text.encode(errors="backslashreplace")))


def write_csv(path: str | Path, header: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a table."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    table.writerows(rows)
    write_text(path, text.getvalue())


def write_json(path: str | Path, content: object) -> None:
    """Write JSON with sorted keys."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON, or say which file is not."""
    with refusing(path, "copy or make it again", OSError, ValueError, RecursionError):
        return json.loads(Path(path).read_text())


def read_record(folder: Path) -> dict[str, dict[str, Any]]:
    """The sections of a run's ``run.json``, or an InputError."""
    with refusing(folder / RECORD, DAMAGED, OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {name: dict(part) for name, part in json.loads((folder / RECORD).read_text()).items()}


def made_by(record: Mapping[str, Mapping[str, Any]]) -> str:
    """The command that made a run, by its record."""
    return str(record.get("made_by", {}).get("command", "an unknown command"))


def check_finished(folder: Path) -> None:
    """InputError where a run was interrupted."""
    if (folder / UNFINISHED).is_dir():
        raise InputError(f"{folder} holds an unfinished run: finish it with --resume")


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], **metadata: str) -> None:
    """Write a safetensors file."""
    from safetensors.torch import save

    content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata or None)
    write(path, lambda temporary: temporary.write_bytes(content))


def read_tensors(path: str | Path, needed: Collection[str] = ()) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, among them those of the ``needed`` names, and the metadata of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    kept = Path(path).parent.name == UNFINISHED
    remedy = "delete it, and --resume makes it again" if kept else "copy or make it again"
    with refusing(path, remedy, SafetensorError, OSError), safe_open(str(path), framework="pt") as file:
        missing = sorted({*needed} - {*file.keys()})
        if missing:
            raise InputError(f"{path} holds no tensor called {missing[0]}: {remedy}")
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


def versions() -> dict[str, str]:
    """What a result depends on beside its configuration."""
    import numpy as np

    from patchmosaic import __version__

    return {
        "patchmosaic": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


@final
class RunFolder:
    """A folder that holds one run.

    ``run.json`` (what decides the result, and versions) is written first, the last of the results last; in between
    ``unfinished/`` holds what a resumed run goes on from.

    Args:
        path: where; made if missing.
        command: that makes the run.
        record: sections of settings, data and versions.
        results: names of the files and folders of a complete run, in the order of their making.
    """

    def __init__(self, path: Path, command: str, record: dict[str, Any], results: Sequence[str]):
        self.path, self.command, self.results = path, command, results
        self.settled = json.loads(json.dumps(record))
        self.record = {"made_by": {"command": command, "results": list(results)}, **self.settled}
        self.partial = path / UNFINISHED

    def open(self, resume: bool, overwrite: bool) -> bool:
        """Make the folder ready; returns whether the run in it is already complete.

        Raises:
            InputError: where going on would lose somebody's results.
        """
        with usable(self.path):
            if self._check(resume, overwrite):
                return True
            if not resume:
                old = {*self.results, *self._results_found()}
                for path in (*self.partial.glob("*"), *(self.path / name for name in old)):
                    if path.is_dir():
                        shutil.rmtree(path)
                    elif path.exists():
                        path.unlink()
        write_json(self.path / RECORD, self.record)
        return False

    def batches(self, count: int, size: int, prefix: str = "") -> Iterator[tuple[Path, slice]]:
        """Where each batch of ``count`` samples is kept until the run is complete, and which samples it holds."""
        for start in range(0, count, size):
            stop = min(start + size, count)
            yield self.partial / f"{prefix}{start}-{stop}.safetensors", slice(start, stop)

    @property
    def complete(self) -> bool:
        """Whether the last result is there."""
        return (self.path / self.results[-1]).exists()

    def _check(self, resume: bool, overwrite: bool) -> bool:
        """Whether the folder holds the run complete; an error if going on would lose or mix results."""
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file; choose a folder with --out")
        if not (self.path / RECORD).exists():
            if resume:
                raise InputError(f"nothing to resume in {self.path}: no run was started there")
            if self.path.exists() and any(self.path.iterdir()):
                raise InputError(f"{self.path} holds other files; choose an empty or new folder with --out")
            return False
        try:
            found = read_record(self.path)
        except InputError:
            if overwrite:
                return False
            raise
        if made_by(found) != self.command:
            raise InputError(f"{self.path} holds a run of {made_by(found)}: choose another folder with --out")
        return not overwrite and self._check_found(found, resume)

    def _check_found(self, found: dict[str, Any], resume: bool) -> bool:
        """The same of a run of this command."""
        different = differences(found, self.settled)
        if different:
            raise InputError(
                f"{self.path} holds a run with other settings ({different}): "
                "repeat its command, choose another --out, or --overwrite it"
            )
        if not self.complete and not resume:
            raise InputError(
                f"{self.path} holds an unfinished run: --resume it, or --overwrite to start anew"
            )
        damaged = [path for path in (self.path / name for name in self.results) if not _is_whole(path)]
        if self.complete and damaged:
            raise InputError(
                f"{damaged[0]} of a complete run is missing or damaged: --overwrite to make it again"
            )
        return self.complete

    def _results_found(self) -> list[str]:
        """Names of the results of the run in the folder, as far as it says."""
        try:
            named = read_record(self.path).get("made_by", {}).get("results", [])
        except InputError:
            return []
        names = named if isinstance(named, list) else []
        return [name for name in names if isinstance(name, str) and Path(name).name == name not in ("", "..")]

    def close(self) -> None:
        """Clear up after the last result is written."""
        for path in self.partial.glob("*"):
            path.unlink()
        if self.partial.exists():
            self.partial.rmdir()


def _is_whole(path: Path) -> bool:
    """Whether a file, or a folder with anything in it, is there and not cut off, as far as its kind tells."""
    from safetensors import SafetensorError, safe_open

    try:
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".safetensors":
            with safe_open(str(path), framework="pt"):
                pass
        return any(path.iterdir()) if path.is_dir() else path.stat().st_size > 0
    except (OSError, ValueError, RecursionError, SafetensorError):
        return False


@contextmanager
def usable(folder: Path) -> Iterator[None]:
    """Around work on an output folder: what the system says of it, in one line."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot use {folder} ({error.strerror}): choose another folder with --out"
        ) from error


def differences(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """The settings in which two records differ, in words; empty if none."""
    return ", ".join(
        f"{key}: {found.get(part, {}).get(key)} there, {value} here"
        for part, settings in expected.items()
        for key, value in settings.items()
        if found.get(part, {}).get(key) != value
    )
