"""What a benchmark measures, and doing it cell by cell."""

import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from patchmosaic.bench import peaks
from patchmosaic.bench.contestants import NAMES
from patchmosaic.bench.measure import measure
from patchmosaic.bench.problem import RULES, Problem, noised
from patchmosaic.data import Dataset, load_dataset
from patchmosaic.errors import InputError, check_count
from patchmosaic.locality import check_window
from patchmosaic.records import versions
from patchmosaic.sampling import check_seeds
from patchmosaic.schedule import CosineSchedule


@dataclass(frozen=True)
class Plan:
    """Everything that decides what is measured.

    Args:
        data: data sets, as :func:`patchmosaic.load_dataset` takes them.
        size: images are resized to size by size.
        count: training images of each; one more is read, whose noised version is the query.
        machines: some of "bbels", "els", "ls".
        windows: odd P.
        levels: times t of the authors' cosine schedule, in (0, 1].
        contestants: engines and rivals.
        repeats: how often each contestant is timed.
        budget: seconds of timed work for each contestant in a cell.
        seed: of the noise.
        slopes: measure also how the box engine's time grows.
        memory: measure also each contestant's peak memory.
        threads: for everything that is measured.
    """

    data: tuple[str, ...] = ("digits",)
    size: int = 32
    count: int = 500
    machines: tuple[str, ...] = ("bbels", "els", "ls")
    windows: tuple[int, ...] = (3, 5, 9, 17)
    levels: tuple[float, ...] = (0.05, 0.5, 0.95)
    contestants: tuple[str, ...] = NAMES
    repeats: int = 5
    budget: float = 5.0
    seed: int = 0
    slopes: bool = False
    memory: bool = False
    threads: int = 1

    def __post_init__(self) -> None:
        for name, known in (("machines", RULES), ("contestants", NAMES)):
            unknown = [item for item in getattr(self, name) if item not in known]
            if unknown:
                raise InputError(f"{name} are some of {', '.join(known)}, not {unknown[0]!r}")
        for name in ("data", "machines", "windows", "levels", "contestants"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise InputError(f"{name} holds something twice")
        for window in self.windows:
            check_window(window)
        if not all(0 < level <= 1 for level in self.levels):
            raise InputError("levels are times in (0, 1], such as 0.5")
        for name in ("count", "repeats", "threads"):
            check_count(name, getattr(self, name))
        if not 0 < self.budget < float("inf"):
            raise InputError(f"budget is in seconds and larger than 0, not {self.budget}")
        check_seeds([self.seed])

    def load(self, source: str, size: int | None = None) -> Dataset:
        """The training images of a source and, last, the held-out one."""
        data = load_dataset(source, size=size or self.size, limit=self.count + 1)
        if len(data) < 2:
            raise InputError(f"{source} has one image: a benchmark needs one to train on and one to denoise")
        return data

    def cells(self) -> Iterator["Cell"]:
        """All combinations."""
        for source in self.data:
            for machine in self.machines:
                for window in self.windows:
                    for level in self.levels:
                        yield Cell(source, machine, window, level)


class Cell(NamedTuple):
    """One line-up: a data set, a machine, a window and a noise level."""

    data: str
    machine: str
    window: int
    level: float


def problem(cell: Cell, data: Dataset, seed: int) -> Problem:
    """The question of a cell: the last image, noised, given all the others."""
    alpha_bar = CosineSchedule().alpha_bar(cell.level)
    x = noised(data.images[-1], alpha_bar, seed)
    return Problem.of(data.pixels[:-1], x, alpha_bar, cell.window, cell.machine)


def origin(plan: Plan, data: dict[str, Dataset]) -> dict[str, Any]:
    """What the results depend on, as JSON holds it: settings, data, computer, versions."""
    work = {"cpu": cpu_name(), "capability": torch.backends.cpu.get_cpu_capability()}
    fingerprints = {source: found.fingerprint for source, found in data.items()}
    record = {"config": asdict(plan), "data": fingerprints, "work": work, "versions": versions()}
    return json.loads(json.dumps(record))


def peak_rates() -> dict[str, float]:
    """Multiply-adds and exponentials per second that this computer reaches."""
    return {"fma_per_second": peaks.fma_per_second(), "exp_per_second": peaks.exp_per_second()}


def run_cell(cell: Cell, data: Dataset, plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure one cell; its record, as JSON holds it."""
    question = problem(cell, data, plan.seed)
    entries, left_out = measure(question, plan.contestants, plan.repeats, plan.budget, plan.memory, say)
    return {
        **cell._asdict(),
        "name": data.name,
        "alpha_bar": question.alpha_bar,
        "channels": data.pixels.shape[1],
        "entries": [asdict(entry) for entry in entries],
        "left_out": left_out,
    }


@lru_cache(maxsize=1)
def cpu_name() -> str:
    """What the processor calls itself."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
