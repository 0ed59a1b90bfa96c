"""Structures that the pictures of a class have a fixed number of: parts, holes, legs, sleeves.

Where late windows are too small to see the whole, neighbouring places decide apart from one another what they are,
and a pair of trousers gets three legs (Kamb & Ganguli 2025, fig. 5c). The counts below are taken on a silhouette:
what is brighter than a threshold, without specks, which are parts or holes of fewer than so many pixels.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchmosaic.errors import InputError

THRESHOLD = -0.8  # of [-1, 1]: dark cloth is still cloth
SPECK = 5  # pixels
SHORT = 2  # rows

Profile = tuple[int, ...]
Value = TypeVar("Value")


class Structures(NamedTuple):
    """What was counted in a batch.

    Attributes:
        parts: pieces that hang together, diagonally too.
        holes: pieces of background, not diagonally connected, that the outside does not reach.
        runs: stretches of foreground in each row, from the top: 1 at the waist of trousers, 2 at the legs.
    """

    parts: Int[Tensor, " b"]
    holes: Int[Tensor, " b"]
    runs: Int[Tensor, "b h"]

    @property
    def profiles(self) -> list[Profile]:
        """The runs of each picture from top to bottom, wherever they change: (1, 2) for trousers.

        Empty rows, and stretches of fewer than ``SHORT`` rows with the same number, are left out.
        """
        return [_profile(runs) for runs in self.runs.tolist()]


def silhouettes(
    images: Float[Tensor, "b 1 h w"], threshold: float = THRESHOLD, speck: int = SPECK
) -> Bool[Tensor, "b h w"]:
    """The foreground of grey pictures, without specks: first small parts go, then small holes are filled.

    Args:
        images: in [-1, 1]; values beyond are allowed.
        threshold: foreground is brighter than this.
        speck: parts and holes of fewer pixels are none.

    Raises:
        InputError: for colour images, no images, NaN or infinity, or a negative speck.
    """
    if images.ndim != 4 or images.shape[1] != 1 or not images.numel():
        raise InputError(f"structures are counted in grey images (B, 1, H, W), not {tuple(images.shape)}")
    if not bool(images.isfinite().all()):
        raise InputError("images to count structures in contain NaN or infinity")
    if speck < 0:
        raise InputError(f"speck is a number of pixels from 0, not {speck}")
    masks = (images[:, 0] > threshold).cpu().numpy()
    return torch.from_numpy(np.stack([_without_specks(mask, speck) for mask in masks]))


def count_structures(
    images: Float[Tensor, "b 1 h w"], threshold: float = THRESHOLD, speck: int = SPECK
) -> Structures:
    """Parts, holes and runs of the :func:`silhouettes` of grey pictures; args and errors are those."""
    masks = silhouettes(images, threshold, speck)
    parts = [int(_parts(mask).max()) for mask in masks.numpy()]
    holes = [int(_background(mask).max()) - 1 for mask in masks.numpy()]
    starts = masks & ~masks.roll(1, 2)
    starts[:, :, 0] = masks[:, :, 0]
    return Structures(torch.tensor(parts), torch.tensor(holes), starts.sum(2))


@dataclass(frozen=True)
class Norm:
    """What the training pictures of one class show.

    Attributes:
        parts: numbers of parts that occur often enough.
        holes: numbers of holes that do.
        profiles: sequences of runs that do; see :attr:`Structures.profiles`.
        threshold: as for :func:`silhouettes`.
        speck: as for :func:`silhouettes`.
    """

    parts: frozenset[int]
    holes: frozenset[int]
    profiles: frozenset[Profile]
    threshold: float = THRESHOLD
    speck: int = SPECK

    @classmethod
    def of(
        cls,
        images: Float[Tensor, "b 1 h w"],
        share: float = 0.01,
        threshold: float = THRESHOLD,
        speck: int = SPECK,
    ) -> "Norm":
        """Each count's values that at least ``share`` of the pictures have.

        Args:
            images: training pictures of one class, in [-1, 1].
            share: in (0, 1].
            threshold: as for :func:`silhouettes`.
            speck: as for :func:`silhouettes`.

        Raises:
            InputError: as :func:`silhouettes`, and for a share outside (0, 1].
        """
        if not 0 < share <= 1:
            raise InputError(f"share must lie in (0, 1], not {share}")
        found = count_structures(images, threshold, speck)
        return cls(
            _common(found.parts.tolist(), share),
            _common(found.holes.tolist(), share),
            _common(found.profiles, share),
            threshold,
            speck,
        )

    def flags(self, images: Float[Tensor, "b 1 h w"]) -> dict[str, Bool[Tensor, " b"]]:
        """Which pictures have "parts", "holes" or "runs" that are not normal; errors as :func:`silhouettes`."""
        found = count_structures(images, self.threshold, self.speck)
        return {
            "parts": torch.tensor([count not in self.parts for count in found.parts.tolist()]),
            "holes": torch.tensor([count not in self.holes for count in found.holes.tolist()]),
            "runs": torch.tensor([profile not in self.profiles for profile in found.profiles]),
        }


def _parts(mask: np.ndarray) -> np.ndarray:
    from skimage.measure import label

    return label(mask, connectivity=2)


def _background(mask: np.ndarray) -> np.ndarray:
    """Pieces of background, numbered from 1, with a border of it, which is 1: the outside."""
    from skimage.measure import label

    return label(np.pad(~mask, 1, constant_values=True), connectivity=1)


def _without_specks(mask: np.ndarray, speck: int) -> np.ndarray:
    mask = mask & ~_small(_parts(mask), speck)
    pieces = _background(mask)
    return mask | _small(np.where(pieces == 1, 0, pieces), speck)[1:-1, 1:-1]


def _small(pieces: np.ndarray, speck: int) -> np.ndarray:
    """Where a piece of fewer than ``speck`` pixels is; 0 is no piece."""
    small = np.bincount(pieces.ravel()) < speck
    small[0] = False
    return small[pieces]


def _profile(runs: Sequence[int]) -> Profile:
    stretches = [(number, len(list(rows))) for number, rows in groupby(number for number in runs if number)]
    return tuple(number for number, _ in groupby(number for number, rows in stretches if rows >= SHORT))


def _common(values: Sequence[Value], share: float) -> frozenset[Value]:
    return frozenset(value for value, count in Counter(values).items() if count >= share * len(values))
