"""Is this picture a copy, a partial copy or a mosaic of the training images?"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from patchmosaic.auditing.levels import check_alike, choose_window, given_levels
from patchmosaic.auditing.search import Finding, Search
from patchmosaic.auditing.verdict import Report, judge, score, threshold
from patchmosaic.errors import InputError
from patchmosaic.sampling import check_seeds

AT_ONCE = 32  # pictures
HELD_OUT = 500  # training pictures that stand in for held-out ones


def audit(
    images: Tensor | np.ndarray,
    training_images: Tensor | np.ndarray,
    held_out: Tensor | np.ndarray | None = None,
    *,
    window: int | None = None,
    seed: int = 0,
) -> list[Report]:
    """Tell copies and partial copies of training images from pictures that share no more than real ones do.

    Textured windows of a picture (every other one in each direction, or every one if smaller than 7 x 7) are looked up
    among all windows of all training images; each alignment found is measured pixel by pixel; connected copied windows
    are fragments. See docs/audit.md.

    Args:
        images: (N, C, H, W), uint8 or floats in [-1, 1], some below 0 unless all are equal.
        training_images: as many channels, the same size; two at least.
        held_out: real pictures that are not among the training images: the more of them share large parts with
            training images, the larger a part must be for a partial copy. Without them, 500 random training images
            stand in, each compared with all others.
        window: side of the smallest fragment, odd; 7, or less for pictures smaller than 12 pixels.
        seed: of the random choice.

    Returns:
        A report for each image.

    Raises:
        InputError: images that cannot be compared, told in one line.
    """
    check_seeds([seed])
    training = given_levels(training_images, "training images")
    pictures = given_levels(images, "images")
    check_alike(pictures, training, "images")
    real, hidden = held_out_pictures(training, held_out, seed)
    search = Search(training, choose_window(training.shape[1:], window))
    pixels = training.shape[2] * training.shape[3]
    limit = threshold([score(finding, pixels) for finding in _in_batches(search, real, hidden)])
    nothing = torch.full((len(pictures),), -1)
    return [judge(finding, pixels, limit) for finding in _in_batches(search, pictures, nothing)]


def held_out_pictures(
    training: UInt8[Tensor, "n c h w"], held_out: Tensor | np.ndarray | None, seed: int, count: int = HELD_OUT
) -> tuple[UInt8[Tensor, "m c h w"], Int[Tensor, " m"]]:
    """Real pictures, and the index of the training image that each of them must not be compared with, or -1."""
    if held_out is not None:
        real = given_levels(held_out, "held-out pictures")
        check_alike(real, training, "held-out pictures")
        return real, torch.full((len(real),), -1)
    if len(training) < 2:
        raise InputError("one training image has no other to be compared with: give held-out pictures")
    some = torch.randperm(len(training), generator=torch.Generator().manual_seed(seed))[:count].sort().values
    return training[some], some


def _in_batches(search: Search, pictures: Tensor, hidden: Tensor) -> Iterator[Finding]:
    for some, own in zip(pictures.split(AT_ONCE), hidden.split(AT_ONCE), strict=True):
        yield from search(some, own)
