"""What decides a comparison, and the machines that follow from it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from patchmosaic import presets
from patchmosaic.comparison.compare import NETWORK_STEPS
from patchmosaic.data import Dataset, DataSettings
from patchmosaic.errors import InputError
from patchmosaic.locality import Locality, LocalitySchedule
from patchmosaic.machine import ScoreMachine
from patchmosaic.nets import Network
from patchmosaic.sampling import check_seeds, time_grid
from patchmosaic.schedule import CosineSchedule

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
        if min(self.network_steps) < 1:
            raise InputError(f"network steps must be at least 1, not {min(self.network_steps)}")
        time_grid(CosineSchedule(), self.steps, self.start)
        if self.batch < 1:
            raise InputError(f"batch must be at least 1, not {self.batch}")
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


def is_circular(network: Network) -> bool:
    """Whether its convolutions wrap around."""
    config: Any = network.model.config
    return config.get("padding") == "circular"


def default_machines(network: Network) -> tuple[str, ...]:
    """IS, LS, and the equivariant local machine that sees what the network sees beyond the image."""
    return ("is", "ls", "els" if is_circular(network) else "bbels")


def data_settings(network: Network, given: dict[str, Any]) -> DataSettings:
    """The training images: as given, or else the network's own, changed in what is given.

    Args:
        network: knows its data if ``patchmosaic train`` made it.
        given: some of the fields of :class:`DataSettings`.
    """
    if "data" in given:
        return DataSettings(**given)
    own = network.data()
    if own is None:
        raise InputError("the network does not say what it was trained on: give --data")
    return DataSettings(**{**asdict(own), **given})


def check_fit(network: Network, data: Dataset) -> None:
    """InputError where the network was made for images of another shape."""
    found, expected = tuple(data.pixels.shape[1:]), network.shape
    if found[0] != expected[0]:
        raise InputError(
            f"the network draws {expected[0]} channels and {data.name} has {found[0]}: use --channels {expected[0]}"
        )
    if found != expected:
        wanted = f"--size {expected[1]}" if expected[1] == expected[2] else "images of that size"
        raise InputError(
            f"the network draws {expected[1]} x {expected[2]} pixels and {data.name} has "
            f"{found[1]} x {found[2]}: use {wanted}"
        )


def labels_in_turn(network: Network, data: Dataset, given: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """The classes to draw: as given, or each one of the training images; None for an unconditional network."""
    if network.classes is None:
        if given is not None:
            raise InputError("the network has no classes: leave out --labels")
        return None
    if data.labels is None:
        raise InputError(f"the network draws classes and {data.name} has none: give --data with classes")
    for label in given or ():
        if not 0 <= label < network.classes:
            raise InputError(f"labels must be 0 to {network.classes - 1} for this network, not {label}")
    return given or tuple(data.labels.unique().tolist())


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


def build_machine(
    name: str, locality: Locality, data: Dataset, circular: bool, memory_budget: int
) -> ScoreMachine:
    """A machine over the training images; what "ls" sees beyond the image is what the network sees."""
    options: dict[str, Any] = {} if locality is None else {"locality": locality}
    if name == "ls":
        options["padding"] = "circular" if circular else "zeros"
    return presets.MACHINES[name](data.pixels, labels=data.labels, memory_budget=memory_budget, **options)


def describe(locality: Locality) -> dict[str, Any]:
    """For ``run.json``."""
    if isinstance(locality, LocalitySchedule):
        return {"windows": locality.windows, "alpha_bars": locality.alpha_bars}
    return {"windows": locality, "alpha_bars": None}
