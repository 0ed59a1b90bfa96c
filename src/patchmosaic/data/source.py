"""What every kind of source offers: its labels at once, its pixels on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from patchmosaic.errors import InputError

BLOCK_VALUES = 2**22
MAX_CLASSES = 2**16


class Block(NamedTuple):
    """Consecutive images of one shape.

    Attributes:
        pixels: (b, c, h, w), uint8 in 0..255 or float32 in [-1, 1], c is 1 or 3.
        where: what to call the first of them in an error message.
    """

    pixels: Tensor
    where: str


@dataclass(frozen=True)
class Source:
    """A set of images before any is decoded.

    Attributes:
        name: short name of the data set.
        where: what to call the source in an error message.
        count: number of images, N.
        read: given ascending row numbers, yields those images in order, block by block.
        labels: int64 (N,), values in 0..len(class_names)-1, or None.
        class_names: one name for each label value; empty without labels.
        name_of: given a row number, the name of that image; None where rows have no names.
    """

    name: str
    where: str
    count: int
    read: Callable[[np.ndarray], Iterator[Block]]
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    name_of: Callable[[int], str] | None = None


def checked_labels(
    labels: Any, count: int, names: Sequence[str], where: str
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Labels as int64 and the name of every class.

    Args:
        labels: array-like of integers, one per image.
        count: number of images.
        names: class names, or empty to number the classes.
        where: the file, for error messages.

    Returns:
        (labels, class names); (None, ()) if every label is -1, the Hub's mark for an unlabelled split.

    Raises:
        InputError: labels of another shape, type or range.
    """
    array = np.asarray(labels)
    if array.shape != (count,):
        raise InputError(
            f"{where}: labels have shape {array.shape}, give one label for each of {count} images"
        )
    if array.dtype.kind not in "iu":
        raise InputError(f"{where}: labels are {array.dtype}, give integers with none missing")
    if count == 0 or np.all(array == -1):
        return None, ()
    low, high = int(array.min()), int(array.max())
    bound = len(names) or MAX_CLASSES
    if low < 0 or high >= bound:
        raise InputError(f"{where}: labels run from {low} to {high}, they must lie in 0..{bound - 1}")
    return array.astype(np.int64), tuple(names) or tuple(map(str, range(high + 1)))


def block_length(image_values: int) -> int:
    """Number of images of so many values each to handle at a time."""
    return max(1, BLOCK_VALUES // image_values)


def stack_runs(images: Iterable[tuple[np.ndarray, str]]) -> Iterator[Block]:
    """Gather consecutive uint8 images (c, h, w), each with its name, of one shape into blocks."""
    run: list[np.ndarray] = []
    first = ""
    for image, where in images:
        if run and (image.shape != run[0].shape or len(run) == block_length(image.size)):
            yield Block(torch.from_numpy(np.stack(run)), first)
            run = []
        if not run:
            first = where
        run.append(image)
    if run:
        yield Block(torch.from_numpy(np.stack(run)), first)
