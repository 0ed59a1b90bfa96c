"""The data set that every machine and metric takes, and the one function that loads it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from patchmosaic.data.embedded import digits_source, two_tone_source
from patchmosaic.data.files import path_source
from patchmosaic.data.hub import hub_source
from patchmosaic.data.pixels import as_floats, assemble
from patchmosaic.data.selection import Classes, class_number, listed, select_rows
from patchmosaic.data.source import Source
from patchmosaic.errors import InputError, check_count

HUB_PREFIX = "hub:"
MAX_SIZE = 4096


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with, where known, their classes.

    Attributes:
        pixels: (N, C, H, W), as stored: uint8 in 0..255 or float32 in [-1, 1].
        labels: int64 (N,), or None.
        class_names: name of each label value; empty without labels.
        indices: int64 (N,), row of each image in the original source.
        name: short name, such as "digits" or "mnist-train".
        names: of each image: its path in its folder, with forward slashes, or its key in a shard of WebDataset;
            None for sources that have row numbers only.
    """

    pixels: Tensor = field(repr=False)
    labels: Tensor | None = field(repr=False)
    class_names: tuple[str, ...]
    indices: Tensor = field(repr=False)
    name: str
    names: tuple[str, ...] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def images(self) -> Tensor:
        """Float32 (N, C, H, W) in [-1, 1]; computed at each access if the pixels are uint8."""
        return as_floats(self.pixels)

    def name_of(self, image: int) -> str:
        """The name of image number ``image``; empty where images have none."""
        return "" if self.names is None else self.names[image]

    def labels_of(self, classes: Iterable[str] | None) -> tuple[int, ...] | None:
        """The labels of classes, each by its name or else its number; None for None.

        Raises:
            InputError: a class that is neither. Whether there are images of it, :meth:`check_labels` tells.
        """
        return None if classes is None else tuple(map(self._label_of, classes))

    def _label_of(self, name: str) -> int:
        label = class_number(self.class_names, name)
        if label is None:
            raise InputError(f"{self.name} has no class {name!r}{self._choice()}")
        return label

    def check_labels(self, labels: Iterable[int] | None) -> None:
        """InputError where there are labels and no image has one of them."""
        for label in labels or ():
            if self.labels is None or not (self.labels == label).any():
                raise InputError(f"no training image has label {label}{self._choice()}")

    def _choice(self) -> str:
        """Which labels there are, for a message."""
        if self.labels is None:
            return f": {self.name} has no labels, leave them out"
        return f": choose from {listed(self.class_names, self.labels.unique().tolist())}"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of shape, dtype, pixels and labels."""
        digest = hashlib.sha256()
        for part in (self.pixels, self.labels):
            if part is None:
                digest.update(b"none")
                continue
            array = part.cpu().contiguous().numpy()
            little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(f"{array.shape} {array.dtype.name} ".encode())
            digest.update(little_endian.data)
        return digest.hexdigest()


def load_dataset(
    source: str | os.PathLike[str],
    *,
    size: int | None = None,
    channels: int | None = None,
    classes: Classes | None = None,
    limit: int | None = None,
    seed: int | None = None,
    split: str = "train",
) -> Dataset:
    """Load images from a built-in set, a file, a folder or the Hugging Face Hub.

    Args:
        source: one of

            - "digits": scikit-learn's 8x8 grey digits, levels v = 0..16 as v / 8 - 1;
            - "two-tone": one black and one white image, 16x16 or of the given size (figure 3 of Kamb &
              Ganguli, ICML 2025, arXiv 2412.20292);
            - a folder of image files, one subfolder per class or none: in order of name, "10.png" before "2.png" and
              "Z.png" before "a.png", class after class; folders within subfolders are not searched;
            - one image file;
            - a .parquet file in the Hub's layout; a .tar shard of WebDataset (image files, classes in .cls files); a
              .npz or .npy file with uint8 images, or float images in [-1, 1] (refused if none is below 0, as in
              [0, 1]); an IDX file, plain or .gz, with its labels file beside it;
            - "hub:NAME": a data set of the Hub, through the optional `datasets` library; with `limit` alone, no more
              than the first images are downloaded.
        size: crop the centre square and resize it to size by size (bilinear, antialiased), 1 to 4096.
        channels: 1 for grey (ITU-R BT.601 weights), 3 for RGB, None to keep: grey if all images are grey.
        classes: name or number of a class, or several, to keep; labels keep their values.
        limit: number of images to keep after `classes`; all, if there are fewer.
        seed: take a random `limit` of them, in their order, instead of the first; a smaller limit with the
            same seed gives a subset.
        split: split of a "hub:NAME" data set.

    Returns:
        The data set; a decoded image file gives uint8 pixels, "digits", "two-tone" and float arrays float32.

    Raises:
        InputError: anything wrong with the arguments or the source, told in one line.
    """
    _check_arguments(size, channels, limit, seed)
    opened = _open_source(source, size, split, limit if classes is None and seed is None else None)
    rows = select_rows(opened, classes, limit, seed)
    return Dataset(
        pixels=assemble(opened.read(rows), len(rows), size, channels, opened.name),
        labels=None if opened.labels is None else torch.from_numpy(opened.labels[rows]),
        class_names=opened.class_names,
        indices=torch.from_numpy(rows),
        name=opened.name,
        names=None if opened.name_of is None else tuple(map(opened.name_of, rows.tolist())),
    )


def _check_arguments(size: int | None, channels: int | None, limit: int | None, seed: int | None) -> None:
    if channels not in (None, 1, 3):
        raise InputError(f"channels is {channels!r}: give 1 (grey), 3 (RGB) or None (as they are)")
    bounds = {"size": (size, 1, MAX_SIZE), "limit": (limit, 1, None), "seed": (seed, 0, None)}
    for name, (value, least, most) in bounds.items():
        if value is not None:
            check_count(name, value, least, most)


def _open_source(source: str | os.PathLike[str], size: int | None, split: str, first: int | None) -> Source:
    if not isinstance(source, str | os.PathLike):
        raise InputError(f"source is a {type(source).__name__}: give the name or path of a data set")
    if isinstance(source, str) and source.startswith(HUB_PREFIX):
        return hub_source(source.removeprefix(HUB_PREFIX), split, first)
    if split != "train":
        raise InputError(
            f"split {split!r} is only for hub:NAME: give {source} the file of that split instead"
        )
    if source == "digits":
        return digits_source()
    if source == "two-tone":
        return two_tone_source(size)
    path = Path(source).expanduser()
    if not source or not path.exists():
        raise InputError(
            f"{str(source)!r} is no data set or existing path: give digits, two-tone, hub:NAME, "
            "or the path of a file or folder"
        )
    return path_source(path)
