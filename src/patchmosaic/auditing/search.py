"""From pictures to what of them is copied: search, then verify every alignment found."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from patchmosaic.auditing.fragments import Fragment, Texture, differences, fragments, mean
from patchmosaic.engines.closest import Windows

SIZES = 4  # between sizes of windows that are counted


def stride(window: int) -> int:
    """From 7 on every other window in each direction is looked up: any square one pixel larger holds one of them."""
    return 2 if window >= 7 else 1


@dataclass(frozen=True, eq=False)
class Finding:
    """What of a picture is copied.

    Attributes:
        textured: pixels in textured windows, of the picture or of the source of its largest fragment, whichever are
            more: a short stroke that is also in a long one is no copy of it.
        fragments: the largest first.
        shares: for each size of windows, the share of the textured ones that is copied whole from one place.
    """

    textured: int
    fragments: list[Fragment]
    shares: dict[int, float]


class Search:
    """What of pictures is in some training images.

    Args:
        training: uint8 (N, C, H, W).
        window: side of the smallest fragment.
    """

    def __init__(self, training: UInt8[Tensor, "n c h w"], window: int):
        self.training, self.window = training, window
        self.windows = Windows(training, window)
        self.stride = stride(window)
        self.sizes = range(window, min(training.shape[2:]) + 1, SIZES)

    def __call__(self, pictures: UInt8[Tensor, "b c h w"], hidden: Int[Tensor, " b"]) -> list[Finding]:
        """Find copies.

        Args:
            pictures: of the training images' shape.
            hidden: for each, the index of a training image that does not count, -1 for none.
        """
        textures = [Texture.of(picture, self.window) for picture in pictures.numpy()]
        asked = np.stack([texture.textured for texture in textures])
        sparse = np.zeros_like(asked)
        sparse[:, :: self.stride, :: self.stride] = asked[:, :: self.stride, :: self.stride]
        which, rows, columns = sparse.nonzero()
        limits = np.stack([texture.limits for texture in textures])[sparse]
        found = self.windows.closest(
            self.windows.cut(pictures)[torch.from_numpy(sparse).flatten(1)],
            torch.from_numpy(limits * self.windows.numbers),
            hidden[torch.from_numpy(which)],
        )
        image, position, width = found.image.numpy(), found.position.numpy(), pictures.shape[3]
        votes = np.stack([image, position // width - rows, position % width - columns], 1)
        return [
            self._verified(picture, texture, votes[(which == i) & (image >= 0)])
            for i, (picture, texture) in enumerate(zip(pictures.numpy(), textures, strict=True))
        ]

    def _verified(self, picture: np.ndarray, texture: Texture, votes: np.ndarray) -> Finding:
        """Measure every alignment voted for, pixel by pixel."""
        alignments = np.unique(votes, axis=0)
        images, offsets = alignments[:, 0], alignments[:, 1:]
        square = differences(picture, self.training[images].numpy(), offsets)
        shares = {size: _share(Texture.of(picture, size), square) for size in self.sizes}
        found, textured = fragments(texture, images, offsets, square), int(texture.pixels.sum())
        if found:
            source = Texture.of(self.training[found[0].image].numpy(), self.window)
            textured = max(textured, int(source.pixels.sum()))
        return Finding(textured, found, shares)


def _share(texture: Texture, square: np.ndarray) -> float:
    copied = (mean(square, texture.window) <= texture.limits).any(0)
    return float((copied & texture.textured).sum() / max(1, texture.textured.sum()))
