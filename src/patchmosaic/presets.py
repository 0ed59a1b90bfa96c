"""The paper's machines by name, and the scales its authors published."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from patchmosaic.errors import InputError
from patchmosaic.locality import Locality, LocalitySchedule
from patchmosaic.machine import ScoreMachine
from patchmosaic.schedule import CosineSchedule, Schedule

Images = Tensor | np.ndarray


def ideal(images: Images, **options: Any) -> ScoreMachine:
    """IS: the exact score of the training set; it can only copy (eq. 3-4).

    :class:`ScoreMachine` describes ``images``, the other arguments and errors.
    """
    return ScoreMachine(images, symmetry="none", **options)


def equivariant(images: Images, **options: Any) -> ScoreMachine:
    """ES: the training set under every circular translation (eq. 5-6).

    :class:`ScoreMachine` describes ``images``, the other arguments and errors.
    """
    return ScoreMachine(images, symmetry="translation", padding="circular", **options)


def local(images: Images, locality: Locality, padding: str = "zeros", **options: Any) -> ScoreMachine:
    """LS: each pixel sees a window, and training patches at its own position (eq. 7-8).

    :class:`ScoreMachine` describes ``images``, the other arguments and errors.
    """
    return ScoreMachine(images, locality=locality, symmetry="none", padding=padding, **options)


def equivariant_local(images: Images, locality: Locality, **options: Any) -> ScoreMachine:
    """ELS: each pixel sees a wrapped window, and training patches from everywhere (eq. 9-10, 39-40).

    :class:`ScoreMachine` describes ``images``, the other arguments and errors.
    """
    return ScoreMachine(images, locality=locality, symmetry="translation", padding="circular", **options)


def boundary_broken(images: Images, locality: Locality, **options: Any) -> ScoreMachine:
    """bbELS: as ELS with zeros outside the image, which tell pixels near the border where they are (eq. 41).

    :class:`ScoreMachine` describes ``images``, the other arguments and errors.
    """
    return ScoreMachine(images, locality=locality, symmetry="translation", padding="zeros", **options)


MACHINES: dict[str, Callable[..., ScoreMachine]] = {
    "is": ideal,
    "es": equivariant,
    "ls": local,
    "els": equivariant_local,
    "bbels": boundary_broken,
}
LOCAL_MACHINES = ("ls", "els", "bbels")

SHORT_NAMES = {"is": "IS", "es": "ES", "ls": "LS", "els": "ELS", "bbels": "bbELS"}
LONG_NAMES = {
    "is": "Ideal score machine",
    "es": "Equivariant score machine",
    "ls": "Local score machine",
    "els": "Equivariant local score machine",
    "bbels": "Boundary-broken equivariant local score machine",
}

# Calibrated by the paper's authors on zero-padded ResNets at t = 1/20, ..., 20/20 of the cosine schedule.
PUBLISHED_SCALES: dict[str, tuple[int, ...]] = {
    "mnist-resnet": (3, 3, 5, 5, 5, 7, 7, 7, 9, 9, 11, 11, 11, 11, 13, 15, 15, 15, 15, 15),
    "fashionmnist-resnet": (3, 3, 5, 5, 7, 7, 9, 9, 9, 11, 11, 11, 13, 13, 13, 15, 15, 15, 17, 17),
    "cifar10-resnet": (3, 3, 3, 3, 5, 5, 5, 7, 7, 7, 7, 9, 9, 11, 11, 13, 15, 17, 17, 17),
    "celeba-resnet": (3, 3, 3, 5, 5, 5, 5, 5, 7, 7, 9, 9, 9, 11, 11, 11, 13, 15, 19, 19),
}


def short(machine: str) -> str:
    """How a machine is called where people read; a name that is not a preset's stays."""
    return SHORT_NAMES.get(machine, machine)


def published_scales(name: str, *, authors_index: bool = False) -> LocalitySchedule:
    """The published window for each noise level.

    Args:
        name: a key of ``PUBLISHED_SCALES``.
        authors_index: as in :meth:`LocalitySchedule.from_steps`.

    Raises:
        InputError: for an unknown name.
    """
    if name not in PUBLISHED_SCALES:
        raise InputError(f"no published scales called {name!r}; there are {', '.join(PUBLISHED_SCALES)}")
    return LocalitySchedule.from_steps(PUBLISHED_SCALES[name], CosineSchedule(), authors_index=authors_index)


def find_scales(name: str, *, authors_index: bool = False) -> LocalitySchedule:
    """Published scales by name, or scales from a JSON file, which cannot be read one index off.

    Args:
        name: a key of ``PUBLISHED_SCALES``, or the path of what :meth:`LocalitySchedule.save` wrote.
        authors_index: as in :meth:`LocalitySchedule.from_steps`.

    Raises:
        InputError: for a name that is neither; for a file that holds no scales, or with ``authors_index``.
    """
    if name in PUBLISHED_SCALES:
        return published_scales(name, authors_index=authors_index)
    if not Path(name).is_file():
        known = ", ".join(PUBLISHED_SCALES)
        raise InputError(f"no scales called {name!r}: give a JSON file, or one of {known}")
    if authors_index:
        raise InputError("start='authors' shifts published scales; a file's are used as they stand")
    return LocalitySchedule.load(name)


def rule_of_thumb(size: int, schedule: Schedule | None = None) -> LocalitySchedule:
    """Windows rising evenly in time from 3 to half the image (at least 7), about as the published ones do.

    Args:
        size: the smaller side of the images in pixels.
        schedule: turns time into noise levels; the paper's cosine by default.
    """
    largest = max(7, size // 2 + 1 | 1)
    windows = [2 * round((3 + (largest - 3) * i / 19 - 1) / 2) + 1 for i in range(20)]
    return LocalitySchedule.from_steps(windows, schedule or CosineSchedule())
