"""The training images behind a machine: stored compactly, handed out in chunks."""

from collections.abc import Iterator
from copy import copy

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

from patchmosaic.errors import InputError
from patchmosaic.symmetry import POINT_GROUPS, transform

BYTE_LEVELS = torch.arange(256, dtype=torch.float32) / 127.5 - 1
_NUMBERS_AT_ONCE = 1 << 20


class Dictionary:
    """Training images under a point group.

    Images with at most 256 distinct values, as anything read from 8-bit files has, are held as one byte per
    number and a table of the values: a quarter of the memory, and exactly the same numbers.

    Args:
        images: (N, C, H, W), floats in [-1, 1] or uint8 in 0..255 (which is scaled to [-1, 1]).
        labels: (N,) integers, or None.
        group: "identity", "flip", "rotations" or "d4": the dictionary is the orbit of the images (theorem B.2).
    """

    def __init__(
        self,
        images: Tensor | np.ndarray,
        labels: Tensor | np.ndarray | None = None,
        group: str = "identity",
    ):
        images = _check_images(images)
        self.shape: tuple[int, int, int] = (images.shape[1], images.shape[2], images.shape[3])
        self.labels = _check_labels(labels, len(images))
        if group not in POINT_GROUPS:
            raise InputError(f"group must be one of {', '.join(POINT_GROUPS)}, not {group!r}")
        self.group = POINT_GROUPS[group]
        if any(turns % 2 for turns, _ in self.group) and images.shape[2] != images.shape[3]:
            raise InputError(f"group {group!r} turns images, so they must be square, not {images.shape[2:]}")
        self._codes, self.levels = _compact(images)

    def __len__(self) -> int:
        """The number of training images, before the group acts."""
        return len(self._codes)

    @property
    def codes(self) -> Shaped[Tensor, "n c h w"]:
        """The images as stored: indices into ``levels``, or floats where there are no levels."""
        return self._codes

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self._codes.device

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._codes.nbytes

    def to(self, device: torch.device | str) -> "Dictionary":
        """Move the images; returns self."""
        self._codes = self._codes.to(device)
        return self

    def subset(self, indices: Int[Tensor, " m"]) -> "Dictionary":
        """A dictionary of the images at ``indices``, under the same group."""
        part = copy(self)
        part._codes = self._codes[indices.to(self.device)]
        part.labels = None if self.labels is None else self.labels[indices]
        return part

    def members(self, label: int | None) -> Int[Tensor, " m"]:
        """Indices of the images of a class; of all images for None."""
        if label is None:
            return torch.arange(len(self))
        if self.labels is None:
            raise InputError("labels were given, but the training images have none")
        found = (self.labels == label).nonzero().flatten()
        if len(found) == 0:
            known = ", ".join(map(str, self.labels.unique().tolist()))
            raise InputError(f"no training image has label {label}; there are {known}")
        return found

    def stored(self, indices: Int[Tensor, " m"]) -> list[Shaped[Tensor, "m c h w"]]:
        """The images at ``indices`` as stored, under each element of the group: indices into ``levels`` if any."""
        codes = self._codes[indices.to(self.device)]
        return [transform(codes, element) for element in self.group]

    def images(self, indices: Int[Tensor, " m"], dtype: torch.dtype) -> Float[Tensor, "m c h w"]:
        """The images at ``indices`` as floats in [-1, 1], as loaded."""
        return self._decode(self._codes[indices.to(self.device)], dtype)

    def pixels(
        self,
        image: Int[Tensor, "..."],
        element: Int[Tensor, "..."],
        row: Int[Tensor, "..."],
        col: Int[Tensor, "..."],
    ) -> Float[Tensor, "... c"]:
        """Pixels of training images under elements of the group, as float64 in [-1, 1]."""
        height, width = self.shape[1:]
        places = torch.arange(height * width).view(height, width)
        before = torch.stack([transform(places, action).flatten() for action in self.group])
        codes = self._codes.flatten(2)[
            image.to(self.device), :, before[element, row * width + col].to(self.device)
        ]
        return self._decode(codes, torch.float64)

    def chunks(
        self, members: Int[Tensor, " m"], size: int, dtype: torch.dtype
    ) -> Iterator[tuple[Int[Tensor, " n"], Float[Tensor, "n c h w"]]]:
        """The orbit of ``members`` under the group, about ``size`` images at a time, with their indices."""
        for indices in members.split(max(1, size // len(self.group))):
            images = self._decode(torch.cat(self.stored(indices)), dtype)
            yield indices.repeat(len(self.group)), images

    def _decode(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        return codes.to(dtype) if self.levels is None else self.levels.to(self.device, dtype)[codes.int()]

    def nearest(
        self, x: Float[Tensor, "b c h w"], labels: Int[Tensor, " b"] | None = None
    ) -> Int[Tensor, " b"]:
        """The index of the training image closest in L2 to each of ``x``, within its class if one is given."""
        found = [
            self._nearest(sample, self.members(None if labels is None else int(labels[i])))
            for i, sample in enumerate(x)
        ]
        return torch.tensor(found)

    def _nearest(self, x: Tensor, members: Tensor) -> int:
        best, where = float("inf"), -1
        for indices, images in self.chunks(members, max(1, _NUMBERS_AT_ONCE // x.numel()), torch.float64):
            distances = (images - x.to(images)).square().sum((1, 2, 3))
            i = int(distances.argmin())
            if float(distances[i]) < best:
                best, where = float(distances[i]), int(indices[i])
        return where


def check_dense(name: str, tensor: Tensor) -> None:
    """InputError for a tensor that is sparse or has no numbers."""
    if tensor.is_meta or tensor.layout != torch.strided:
        raise InputError(f"{name} must be a dense tensor with numbers in it, not a sparse or meta tensor")


def _check_images(images: Tensor | np.ndarray) -> Tensor:
    if not isinstance(images, Tensor | np.ndarray):
        raise InputError(f"images must be a torch tensor or a numpy array, not {type(images).__name__}")
    if isinstance(images, np.ndarray):
        if images.dtype.kind not in "fiub":
            raise InputError(f"images must be numbers, not {images.dtype}")
        images = torch.from_numpy(np.require(images, requirements=["C", "W"]))
    if images.ndim != 4 or min(images.shape) == 0:
        raise InputError(f"images must have shape (N, C, H, W) with nothing empty, not {tuple(images.shape)}")
    check_dense("images", images)
    if images.dtype == torch.uint8:
        return images
    if images.dtype not in (torch.float32, torch.float64):
        raise InputError(f"images must be float32, float64 or uint8, not {str(images.dtype).split('.')[-1]}")
    low, high = (float(bound) for bound in images.aminmax())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError("the training images contain NaN or infinity; remove those images first")
    if low < -1.001 or high > 1.001:
        raise InputError(
            f"floating-point images must be scaled to [-1, 1], but these span [{low:.4g}, {high:.4g}]"
        )
    return images


def _check_labels(labels: Tensor | np.ndarray | None, count: int) -> Tensor | None:
    if labels is None:
        return None
    labels = torch.as_tensor(labels)
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(f"labels must be integers, not {str(labels.dtype).split('.')[-1]}")
    if labels.shape != (count,):
        raise InputError(f"labels must have one entry per image, shape ({count},), not {tuple(labels.shape)}")
    return labels.long().cpu()


def _compact(images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Bytes and a table of at most 256 values that give exactly ``images``, or the images and None."""
    if images.dtype == torch.uint8:
        return images, BYTE_LEVELS
    pieces = images.flatten().split(_NUMBERS_AT_ONCE)
    levels = images.new_empty(0)
    for piece in pieces:
        if len(levels) == 0 or not torch.equal(levels[_codes_of(piece, levels)], piece):
            levels = torch.cat([levels, piece.unique()]).unique()
        if len(levels) > 256:
            return images, None
    codes = torch.empty(images.numel(), dtype=torch.uint8, device=images.device)
    for piece, out in zip(pieces, codes.split(_NUMBERS_AT_ONCE), strict=True):
        out.copy_(_codes_of(piece, levels))
    return codes.view(images.shape), levels


def _codes_of(piece: Tensor, levels: Tensor) -> UInt8[Tensor, " n"] | Int[Tensor, " n"]:
    return torch.searchsorted(levels, piece, out_int32=True).clamp_(max=len(levels) - 1)
