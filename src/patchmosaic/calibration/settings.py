"""What decides a calibration."""

from dataclasses import dataclass

from patchmosaic import presets
from patchmosaic.calibration.calibrate import sort_windows
from patchmosaic.data import DataSettings
from patchmosaic.errors import InputError, check_count
from patchmosaic.sampling import check_seeds
from patchmosaic.schedule import MAX_STEPS


@dataclass(frozen=True)
class Settings(DataSettings):
    """Everything that decides the result of a calibration; equal settings give equal bytes on one computer.

    ``batch`` is among them because the last bits of a network's answer depend on how many images it is asked for.
    """

    network: str | None = None
    machines: tuple[str, ...] = ("ls", "bbels")
    windows: tuple[int, ...] = (3, 5, 7, 9, 11, 13, 15)
    seeds: tuple[int, ...] = tuple(range(20))
    labels: tuple[int, ...] | None = None
    steps: int = 20
    batch: int = 5
    receptive_fields: bool = False

    def __post_init__(self) -> None:
        for name in self.machines:
            if name not in presets.LOCAL_MACHINES:
                raise InputError(
                    f"windows can be calibrated for {', '.join(presets.LOCAL_MACHINES)}, not for {name!r}"
                )
        if len(set(self.machines)) < len(self.machines):
            raise InputError("a machine is given twice")
        check_seeds(self.seeds)
        check_count("--steps", self.steps, most=MAX_STEPS)
        check_count("--batch", self.batch)
        object.__setattr__(self, "windows", sort_windows(self.windows))
