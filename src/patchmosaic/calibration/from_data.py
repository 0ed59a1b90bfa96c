"""A prediction of windows from data alone that is recorded and can be resumed."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from patchmosaic import plots
from patchmosaic.calibration.predict import (
    BATCH,
    PIXELS,
    HeldOutRisk,
    PredictedSchedule,
    check_rule,
    default_rule,
    plan_risk,
)
from patchmosaic.calibration.risk_picture import draw_risk, draw_windows
from patchmosaic.data import Dataset, DataSettings
from patchmosaic.errors import InputError, check_count
from patchmosaic.machine import DEFAULT_MEMORY_BUDGET
from patchmosaic.nets import Network
from patchmosaic.nets.matching import check_fit
from patchmosaic.presets import LOCAL_MACHINES, find_scales, short
from patchmosaic.records import RunFolder, read_tensors, versions, write_csv, write_json, write_tensors
from patchmosaic.schedule import MAX_STEPS, CosineSchedule

RESULTS = ("risk.csv", "risk.png", "windows.png")
COLUMNS = ("t", "alpha_bar", "window", "risk", "risk_stderr", "excess_stderr", "chosen")
_WAYS = {"ls": ("none", "zeros"), "els": ("translation", "circular"), "bbels": ("translation", "zeros")}


@dataclass(frozen=True)
class Settings(DataSettings):
    """Everything that decides the result of a prediction."""

    machine: str = "bbels"
    windows: tuple[int, ...] | None = None
    max_window: int | None = None
    by_class: bool = False
    held_out: int | None = None
    pixels: int = PIXELS
    steps: int = 20
    rule: str | None = None
    seed: int = 0
    network: str | None = None
    beside: str | None = None

    def __post_init__(self) -> None:
        if self.machine not in LOCAL_MACHINES:
            raise InputError(
                f"windows can be predicted for one of {', '.join(LOCAL_MACHINES)}, not {self.machine!r}"
            )
        check_count("--steps", self.steps, most=MAX_STEPS)


@final
class Prediction:
    """Held-out risks of one machine, and the folder that holds them.

    ``run.json`` is written first, ``windows.png`` last; in between ``unfinished/`` holds what posterior means of
    finished batches of held-out images are off by.

    Args:
        folder: where; made if missing.
        settings: what decides the result.
        data: the training images, loaded as the settings say.
        network: whose risk is to be measured too, loaded as the settings say; or None.
        memory_budget: bytes of working memory.

    Raises:
        InputError: if data, network and settings do not fit together; nothing is written then.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        data: Dataset,
        network: Network | None = None,
        memory_budget: int = DEFAULT_MEMORY_BUDGET,
    ):
        if settings.by_class and data.labels is None:
            raise InputError(f"{data.name} has no classes: leave out --by-class")
        if network is not None:
            check_fit(network, data)
            if network.classes is not None and not settings.by_class:
                raise InputError("the network draws classes: add --by-class")
        self.settings, self.data, self.network, self.memory_budget = settings, data, network, memory_budget
        self.rule = settings.rule or default_rule(network)
        check_rule(self.rule, network)
        self.times = tuple(i / settings.steps for i in range(1, settings.steps + 1))
        self.beside = None if settings.beside is None else find_scales(settings.beside)
        self.plan: HeldOutRisk = plan_risk(
            data.pixels,
            data.labels if settings.by_class else None,
            *_WAYS[settings.machine],
            settings.windows,
            tuple(map(CosineSchedule().alpha_bar, self.times)),
            settings.held_out,
            settings.max_window,
            settings.seed,
            settings.pixels,
        )
        self.held_out, self.pixels = self.plan.queries.positions.shape
        self.files = RunFolder(
            folder, "calibrate --from-data", self._record(), (f"{settings.machine}.json", *RESULTS)
        )

    def _record(self) -> dict[str, object]:
        shape = list(self.data.pixels.shape)
        network = {} if self.network is None else {"fingerprint": self.network.fingerprint}
        return {
            "config": {**asdict(self.settings), "held_out": self.held_out, "pixels": self.pixels},
            "data": {"name": self.data.name, "fingerprint": self.data.fingerprint, "shape": shape},
            "network": network,
            "versions": versions(),
        }

    def measure(self) -> PredictedSchedule:
        """Measure what was not measured yet, and write the results."""
        from tqdm import tqdm

        batches = list(self.files.batches(self.held_out, BATCH))
        with tqdm(total=self.held_out, unit="image", desc="held-out risk", disable=None) as bar:
            for path, rows in batches:
                if not path.exists():
                    write_tensors(path, self._measure(rows))
                bar.update(rows.stop - rows.start)
        names = ["residuals"] if self.network is None else ["residuals", "network"]
        parts = [read_tensors(path, names)[0] for path, _ in batches]
        schedule = PredictedSchedule.from_residuals(
            self.plan.alpha_bars,
            self.plan.candidates,
            torch.cat([part["residuals"] for part in parts], 2),
            self.rule,
            None if self.network is None else torch.cat([part["network"] for part in parts], 1),
        )
        self._write(schedule)
        return schedule

    def _measure(self, rows: slice) -> dict[str, Tensor]:
        found = {"residuals": self.plan.residuals(rows, self.memory_budget)}
        if self.network is not None:
            found["network"] = self.plan.network_errors(self.network, rows)
        return found

    def _write(self, schedule: PredictedSchedule) -> None:
        folder, data = self.files.path, self.data.name
        origin = {"data": self.data.fingerprint, "held_out": self.held_out}
        write_json(folder / f"{self.settings.machine}.json", {**schedule.describe(), **origin})
        write_csv(folder / "risk.csv", COLUMNS, self._rows(schedule))
        title = f"{short(self.settings.machine)}, {len(self.plan.dictionary):,} images of {data}"
        plots.save(draw_risk(schedule, self.times, title), folder / "risk.png")
        page = draw_windows(schedule, self.times, title, self.beside, self.settings.beside or "")
        plots.save(page, folder / "windows.png")
        self.files.close()

    def _rows(self, schedule: PredictedSchedule) -> Iterator[tuple[float, ...]]:
        for i, (t, alpha_bar) in enumerate(zip(self.times, schedule.alpha_bars, strict=True)):
            for j, window in enumerate(schedule.candidates):
                numbers = (schedule.risk, schedule.risk_stderr, schedule.excess_stderr)
                chosen = int(window == schedule.windows[i])
                yield (t, alpha_bar, window, *(float(part[i, j]) for part in numbers), chosen)
