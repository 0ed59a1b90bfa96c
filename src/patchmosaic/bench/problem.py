"""One question put to every contestant, and what answering it takes."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from patchmosaic import presets
from patchmosaic.dictionary import BYTE_LEVELS
from patchmosaic.machine import ScoreMachine
from patchmosaic.symmetry import Rules

RULES = {
    "ls": Rules(translation=False, padding="zeros"),
    "els": Rules(translation=True, padding="circular"),
    "bbels": Rules(translation=True, padding="zeros"),
}


class Problem(NamedTuple):
    """The posterior mean of one noisy image under one machine.

    Attributes:
        pixels: training images as stored, uint8 in 0..255 or float in [-1, 1].
        images: the same as float32 in [-1, 1].
        x: the noisy image, float32.
        alpha_bar: its noise level, in [0, 1).
        window: odd P.
        machine: a key of ``RULES``.
    """

    pixels: Shaped[Tensor, "n c h w"]
    images: Float[Tensor, "n c h w"]
    x: Float[Tensor, "1 c h w"]
    alpha_bar: float
    window: int
    machine: str

    @classmethod
    def of(
        cls,
        pixels: Shaped[Tensor, "n c h w"],
        x: Float[Tensor, "1 c h w"],
        alpha_bar: float,
        window: int,
        machine: str,
    ) -> "Problem":
        """With the images as floats made from the pixels."""
        images = pixels if pixels.is_floating_point() else BYTE_LEVELS[pixels.int()]
        return cls(pixels, images, x, alpha_bar, window, machine)

    def first(self, count: int) -> "Problem":
        """The same question of the first ``count`` training images only."""
        return self._replace(pixels=self.pixels[:count], images=self.images[:count])

    def score_machine(self, engine: str) -> ScoreMachine:
        """The library's own machine for it."""
        return presets.MACHINES[self.machine](self.pixels, locality=self.window, engine=engine)

    @property
    def pairs(self) -> int:
        """Pairs of a pixel and a training patch."""
        height, width = self.x.shape[2:]
        return len(self.images) * pairs_per_image(self.machine, height, width, self.window)

    def reference(self) -> Float[Tensor, "1 c h w"]:
        """The answer of the dense engine in float64."""
        return self.score_machine("dense").denoise(self.x.double(), self.alpha_bar)


def noised(image: Float[Tensor, "c h w"], alpha_bar: float, seed: int) -> Float[Tensor, "1 c h w"]:
    """sqrt(alpha_bar) image + sqrt(1 - alpha_bar) noise, the noise drawn from ``seed``."""
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    return (alpha_bar**0.5 * image + (1 - alpha_bar) ** 0.5 * noise)[None]


def pairs_per_image(machine: str, height: int, width: int, window: int) -> int:
    """Pairs of a query pixel and a position in one training image that may stand in for it.

    LS: every pixel has its own position, H W. ELS: every pixel has all, (H W)^2. bbELS: rows i and i' match
    when both see the same of the border; of n rows, ``inner = max(0, n - 2 r)`` see none of it and match one
    another, the others match only themselves, and likewise the columns.
    """
    if machine == "ls":
        return height * width
    if machine == "els":
        return (height * width) ** 2
    return _matching(height, window // 2) * _matching(width, window // 2)


def _matching(size: int, radius: int) -> int:
    inner = max(0, size - 2 * radius)
    return inner**2 + size - inner


def useful_operations(channels: int) -> int:
    """Slots of a multiply-add unit that a pair needs, beside its one exponential: 3 C + 5.

    This is the work of the cheapest exact method known, whatever a contestant really does: for every channel a
    difference and its square added on (2 C); the window's sum kept running along rows and along columns, one
    addition and one subtraction each (4); the weighted sum of C values (C); and the sum of the weights (1).
    The scale 1 / (2 sigma^2) and the running maximum are left out.
    """
    return 3 * channels + 5
