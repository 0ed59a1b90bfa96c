"""What decides a comparison, and the windows that follow from it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchmosaic import presets
from patchmosaic.comparison.compare import NETWORK_STEPS
from patchmosaic.data import DataSettings
from patchmosaic.errors import InputError, check_count
from patchmosaic.locality import Locality, LocalitySchedule
from patchmosaic.nets import Network
from patchmosaic.sampling import check_seeds, time_grid
from patchmosaic.schedule import MAX_STEPS, CosineSchedule

RULE_OF_THUMB = "rule of thumb"


@dataclass(frozen=True)
class Settings(DataSettings):
    """Everything that decides the result of a comparison; equal settings give equal bytes on one computer.

    ``batch`` is among them because the last bits of a network's answer depend on how many images it is asked for.
    """

    network: str | None = None
    machines: tuple[str, ...] = ("is", "ls", "bbels")
    seeds: tuple[int, ...] = tuple(range(100))
    labels: tuple[int, ...] | None = None
    network_steps: tuple[int, ...] = NETWORK_STEPS
    steps: int = 20
    start: str = "aligned"
    scales: str | None = None
    window: int | None = None
    batch: int = 10

    def __post_init__(self) -> None:
        _check_distinct("machine", self.machines)
        _check_distinct("seed", self.seeds)
        _check_distinct("number of network steps", self.network_steps)
        for name in self.machines:
            if name not in presets.MACHINES:
                raise InputError(f"machines must be among {', '.join(presets.MACHINES)}, not {name!r}")
        check_seeds(self.seeds)
        for steps in self.network_steps:
            check_count("network steps", steps, most=MAX_STEPS)
        time_grid(CosineSchedule(), self.steps, self.start)
        check_count("batch", self.batch)
        self._check_windows()

    def _check_windows(self) -> None:
        if self.window is not None and self.scales is not None:
            raise InputError("give a window or scales, not both")
        given = self.window is not None or self.scales is not None
        if given and not set(self.machines) & set(presets.LOCAL_MACHINES):
            raise InputError(
                f"{' and '.join(self.machines)} see the whole image: leave out the window and the scales"
            )


def _check_distinct(name: str, values: tuple[Any, ...]) -> None:
    if not values:
        raise InputError(f"a comparison needs at least one {name}")
    for value in values:
        if values.count(value) > 1:
            raise InputError(f"{name} {value} is given twice")


def find_locality(
    settings: Settings, network: Network, machine: str, size: int
) -> tuple[Locality, str | None]:
    """What a pixel of a machine sees, and in words where that comes from; nothing for the whole image."""
    if machine not in presets.LOCAL_MACHINES:
        return None, None
    if settings.window is not None:
        return settings.window, "given"
    if settings.scales is not None:
        folder = Path(settings.scales)
        name = str(folder / f"{machine}.json") if folder.is_dir() else settings.scales
        return presets.find_scales(name, authors_index=settings.start == "authors"), name
    calibrated = network.scales(machine)
    if calibrated is not None:
        return calibrated, "calibrated on the network"
    return presets.rule_of_thumb(size), RULE_OF_THUMB


def describe(locality: Locality) -> dict[str, Any]:
    """For ``run.json``."""
    if isinstance(locality, LocalitySchedule):
        return {"windows": locality.windows, "alpha_bars": locality.alpha_bars}
    return {"windows": locality, "alpha_bars": None}
