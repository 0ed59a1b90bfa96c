"""The training images, labels and machines that go with a network."""

from dataclasses import asdict
from typing import Any

from patchmosaic import presets
from patchmosaic.data import Dataset, DataSettings
from patchmosaic.errors import InputError
from patchmosaic.locality import Locality
from patchmosaic.machine import ScoreMachine
from patchmosaic.nets.network import Network


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


def build_machine(
    name: str, locality: Locality, data: Dataset, circular: bool, memory_budget: int
) -> ScoreMachine:
    """A machine over the training images; what "ls" sees beyond the image is what the network sees."""
    options: dict[str, Any] = {} if locality is None else {"locality": locality}
    if name == "ls":
        options["padding"] = "circular" if circular else "zeros"
    return presets.MACHINES[name](data.pixels, labels=data.labels, memory_budget=memory_budget, **options)
