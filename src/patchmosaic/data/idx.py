"""IDX files, the format in which MNIST was published, plain or compressed with gzip."""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np

from patchmosaic.data.arrays import array_source
from patchmosaic.data.source import Source
from patchmosaic.errors import InputError, refusing

UNSIGNED_BYTES = 0x08
GZIP_MAGIC = b"\x1f\x8b"
LABEL_NAMES = {"images-idx3": "labels-idx1", "images.idx3": "labels.idx1"}


def is_idx(path: Path) -> bool:
    """Whether the name is that of an IDX image file."""
    name = path.name.lower()
    return "idx3" in name or name.endswith((".idx", ".idx.gz"))


def idx_source(path: Path) -> Source:
    """Grey images (N, H, W) of unsigned bytes; labels from the "labels-idx1" file beside, if there.

    Raises:
        InputError: either file is truncated, is no IDX file, or they differ in length.
    """
    images = _read_idx(path, 3)
    for part, replacement in LABEL_NAMES.items():
        label_path = path.with_name(path.name.replace(part, replacement))
        if part in path.name and label_path.is_file():
            return array_source(path.stem, str(path), images, _read_idx(label_path, 1))
    return array_source(path.stem, str(path), images)


def _read_idx(path: Path, ndim: int) -> np.ndarray:
    with refusing(path, "download it again", OSError, EOFError, zlib.error):
        data = path.read_bytes()
        if data.startswith(GZIP_MAGIC):
            data = gzip.decompress(data)
    if data[:4] != bytes([0, 0, UNSIGNED_BYTES, ndim]):
        raise InputError(
            f"{path} is not an IDX file of unsigned bytes in {ndim} dimension(s): check the file"
        )
    header = 4 + 4 * ndim
    if len(data) < header:
        raise InputError(f"{path} ends within its header: download it again")
    shape = [int(length) for length in np.frombuffer(data, dtype=">u4", count=ndim, offset=4)]
    if len(data) != header + prod(shape):
        held, announced = len(data) - header, prod(shape)
        raise InputError(f"{path} holds {held} bytes, its header announces {announced}: download it again")
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape)
