"""Images held in one array: NumPy's .npz and .npy files."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from patchmosaic.data.pixels import check_scale
from patchmosaic.data.source import Block, Source, block_length, checked_labels
from patchmosaic.errors import InputError, refusing

IMAGE_KEYS = ("images", "x", "arr_0", "x_train", "data")
LABEL_KEYS = ("labels", "y", "arr_1", "y_train")
READ_ERRORS = (OSError, ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error)


def npz_source(path: Path) -> Source:
    """A .npz archive with an array of images and, optionally, one of integer labels.

    Raises:
        InputError: the archive cannot be read or its arrays do not fit `array_source`.
    """
    with refusing(path, "save it again with numpy.savez", *READ_ERRORS), path.open("rb") as stream:
        archive = np.load(stream, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise InputError(f"{path} is not an .npz archive: save it with numpy.savez, or name it .npy")
        image_key = next((key for key in IMAGE_KEYS if key in archive), None)
        label_key = next((key for key in LABEL_KEYS if key in archive), None)
        if image_key is None:
            held = ", ".join(archive.files) or "nothing"
            raise InputError(f"{path} holds {held}: name its image array one of {', '.join(IMAGE_KEYS)}")
        images = archive[image_key]
        labels = None if label_key is None else archive[label_key]
    return array_source(path.stem, str(path), images, labels)


def npy_source(path: Path) -> Source:
    """A .npy file with an array of images; only the rows asked for are read into memory.

    Raises:
        InputError: the file cannot be read or its array does not fit `array_source`.
    """
    with refusing(path, "save it again with numpy.save", *READ_ERRORS):
        images = np.lib.format.open_memmap(path, mode="r")
    return array_source(path.stem, str(path), images)


def array_source(
    name: str, where: str, images: np.ndarray, labels: Any = None, names: tuple[str, ...] = ()
) -> Source:
    """Source over an array.

    Args:
        name: short name.
        where: what error messages call it.
        images: (N, H, W), (N, C, H, W) or (N, H, W, C) with C = 1 or 3, read as (N, C, H, W) where both
            fit; uint8 in 0..255 or float in [-1, 1], some below 0 unless all are equal.
        labels: integers (N,), or None.
        names: class names, or empty to number the classes.

    Raises:
        InputError: another dtype or shape; labels that do not fit. Values are checked when they are read.
    """
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise InputError(f"{where}: images are {images.dtype}, give uint8 in 0..255 or float in [-1, 1]")
    channels_first = _channels_first(images, where)
    known, class_names = (None, ()) if labels is None else checked_labels(labels, len(images), names, where)
    return Source(name, where, len(images), partial(_blocks, channels_first, where), known, class_names)


def _channels_first(images: np.ndarray, where: str) -> np.ndarray:
    given = images.shape
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[1] not in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
        raise InputError(
            f"{where}: images have shape {given}, give (N, H, W), (N, C, H, W) or (N, H, W, C) "
            "with C = 1 or 3"
        )
    return images


def _blocks(images: np.ndarray, where: str, rows: np.ndarray) -> Iterator[Block]:
    step = block_length(images[0].size)
    if images.dtype != np.uint8:
        _check_darkness(images, step, where)
    for start in range(0, len(rows), step):
        yield Block(_checked_pixels(images[rows[start : start + step]], where), where)


def _check_darkness(images: np.ndarray, step: int, where: str) -> None:
    """InputError for floats in [0, 1], of all images: the few asked for may well be bright."""
    low, high = np.inf, -np.inf
    for start in range(0, len(images), step):
        block = images[start : start + step]
        low = min(low, float(np.fmin.reduce(block, axis=None)))
        high = max(high, float(np.fmax.reduce(block, axis=None)))
        if low < 0 or high > 1:
            return
    check_scale(low, high, f"{where}: float images")


def _checked_pixels(block: np.ndarray, where: str) -> Tensor:
    if block.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(block))
    if not np.isfinite(block).all():
        raise InputError(f"{where}: images hold NaN or infinite values, remove those images")
    low, high = float(block.min()), float(block.max())
    if low < -1 or high > 1:
        raise InputError(
            f"{where}: float images run from {low:g} to {high:g} but must lie in [-1, 1]; "
            "convert with x / 127.5 - 1 from 0..255 or 2 * x - 1 from [0, 1]"
        )
    return torch.from_numpy(np.ascontiguousarray(block, dtype=np.float32))
