"""A machine as files: what it is and where its images are, and the images themselves where asked."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from patchmosaic.data import DataSettings
from patchmosaic.dictionary import Dictionary
from patchmosaic.errors import InputError
from patchmosaic.locality import Locality, LocalitySchedule
from patchmosaic.machine import ScoreMachine
from patchmosaic.records import read_tensors, write_tensors
from patchmosaic.symmetry import POINT_GROUPS

IMAGES = "images.safetensors"


def describe(machine: ScoreMachine, source: DataSettings | None) -> dict[str, Any]:
    """Everything that decides a machine's answers, for a configuration in JSON."""
    rules, locality = machine.rules, machine.locality
    windows: Any = locality
    alpha_bars = None
    if isinstance(locality, LocalitySchedule):
        windows, alpha_bars = list(locality.windows), list(locality.alpha_bars)
    group = next(name for name, group in POINT_GROUPS.items() if group == machine.dictionary.group)
    return {
        "windows": windows,
        "alpha_bars": alpha_bars,
        "symmetry": "translation" if rules.translation else "none",
        "padding": rules.padding,
        "keys": rules.keys,
        "group": group,
        "tol": machine.tol,
        "source": None if source is None else asdict(source),
        "images": fingerprint(machine.dictionary),
    }


def build(config: dict[str, Any], folder: Path) -> tuple[ScoreMachine, DataSettings | None]:
    """The machine of a configuration, over the images in ``folder`` or those that it says where to find.

    Raises:
        InputError: images that cannot be had, or are others than the machine was saved with.
    """
    source = config["source"] and DataSettings.from_record(config["source"])
    if (folder / IMAGES).exists():
        images, labels = _unpack(read_tensors(folder / IMAGES)[0])
        where = str(folder / IMAGES)
    elif source is None:
        raise InputError(
            f"{folder} holds no images and does not say where they are: save it with include_data=True"
        )
    else:
        data = source.load()
        images, labels, where = data.pixels, data.labels, source.data
    locality: Locality = config["windows"]
    if config["alpha_bars"] is not None:
        locality = LocalitySchedule(config["alpha_bars"], config["windows"])
    if config["images"]["labels"] is None:
        labels = None  # of the source, which the machine was made without
    choices = {name: config[name] for name in ("symmetry", "padding", "keys", "group", "tol")}
    machine = ScoreMachine(images, labels, locality, **choices)
    _check(
        fingerprint(machine.dictionary),
        config["images"],
        where,
        "give it the same data, or build a new machine",
    )
    return machine, source


def check_source(config: dict[str, Any], source: DataSettings) -> None:
    """InputError unless a source gives the images of a machine's configuration: it could not be loaded again."""
    data = source.load()
    labels = None if config["images"]["labels"] is None else data.labels
    mend = "give the source that they come from, or save with include_data=True"
    _check(fingerprint(Dictionary(data.pixels, labels)), config["images"], source.data, mend)


def fingerprint(dictionary: Dictionary) -> dict[str, Any]:
    """The shape of the training images, and SHA-256 of their pixels and of their labels."""
    pixels = hashlib.sha256()
    for part in torch.arange(len(dictionary)).split(1024):
        pixels.update(dictionary.images(part, torch.float32).cpu().contiguous().numpy().tobytes())
    labels = (
        None if dictionary.labels is None else hashlib.sha256(dictionary.labels.numpy().tobytes()).hexdigest()
    )
    return {"shape": [len(dictionary), *dictionary.shape], "pixels": pixels.hexdigest(), "labels": labels}


def _check(found: dict[str, Any], wanted: dict[str, Any], where: str, mend: str) -> None:
    if found["shape"] != wanted["shape"]:
        there, here = ("x".join(map(str, one["shape"])) for one in (found, wanted))
        raise InputError(f"{where} holds images of shape {there}, and the machine was made of {here}: {mend}")
    different = [name for name in ("pixels", "labels") if found[name] != wanted[name]]
    if different:
        raise InputError(
            f"the {' and '.join(different)} of the images in {where} are not those that the machine was made of: {mend}"
        )


def write_images(dictionary: Dictionary, path: Path) -> None:
    """The images as bytes and their levels, or as floats where they have more levels than bytes."""
    tensors = {"codes": dictionary.codes}
    if dictionary.levels is not None:
        tensors["levels"] = dictionary.levels
    if dictionary.labels is not None:
        tensors["labels"] = dictionary.labels
    write_tensors(path, {name: part.cpu() for name, part in tensors.items()})


def _unpack(tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    codes, levels = tensors["codes"], tensors.get("levels")
    return codes if levels is None else levels[codes.int()], tensors.get("labels")
