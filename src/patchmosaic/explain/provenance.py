"""Which training patches each pixel came from.

Each pixel of a machine's estimate is a mean of the centres of training patches under posterior weights (Kamb &
Ganguli 2025, eq. 3-10, 39-41). These weights are its provenance: exact, for a machine's own samples at any step, and
for pictures of any model at a stated noise level or in the limit of zero noise, the nearest patch (theorem 4.1).
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchmosaic.denoiser import AlphaBar
from patchmosaic.errors import check_count
from patchmosaic.machine import ScoreMachine

MAJORITY = 0.5 + 1e-4  # of a pixel's belief, with room for rounding


class TopImages(NamedTuple):
    """The training images that stand for most of each picture, best first, in the order that captum returns.

    Attributes:
        indices: of the training images, as given to the machine.
        scores: float64 weight, summed over the pixels of a picture; among equal weights the first image leads.
    """

    indices: Int[Tensor, "b k"]
    scores: Float[Tensor, "b k"]


@dataclass(frozen=True, eq=False)
class Provenance:
    """The sources of every pixel of some pictures, best first; among equal weights by image, row and column.

    Sources that do not exist, where fewer than k patches may stand in for a pixel, have image -1 and weight 0.

    Attributes:
        image: index of the training image, as given to the machine.
        row: of the pixel in that image, after the element of the group acts on it.
        col: likewise.
        element: what acts on the image before row and column are counted; 0 leaves it as it is. Of group "flip", 1
            mirrors it left to right; of "rotations", e is e quarter turns counter-clockwise; of "d4", e is e % 4
            such turns, and from 4 on a mirroring after them.
        weight: float64 share of the pixel's belief, in [0, 1].
        entropy: float64 entropy of all of the pixel's belief, in nats.
        by_image: float64 (n_train, n_test) weight of each training image, summed over the pixels of a picture, whose
            number is the sum: attribution scores in the shape that attribution libraries use.
        wraps: whether the machine's images wrap around, so that a source may lie beyond the border.
        pixel: row and column of the only pixel that was traced; None: all were.
    """

    image: Int[Tensor, "b k h w"] = field(repr=False)
    row: Int[Tensor, "b k h w"] = field(repr=False)
    col: Int[Tensor, "b k h w"] = field(repr=False)
    element: Int[Tensor, "b k h w"] = field(repr=False)
    weight: Float[Tensor, "b k h w"] = field(repr=False)
    entropy: Float[Tensor, "b h w"] = field(repr=False)
    by_image: Float[Tensor, "n b"] = field(repr=False)
    wraps: bool = False
    pixel: tuple[int, int] | None = None

    @property
    def covered(self) -> Float[Tensor, "b h w"]:
        """The share of each pixel's belief that the named sources hold."""
        return self.weight.sum(1)

    @property
    def effective(self) -> Float[Tensor, "b h w"]:
        """The effective number of patches a pixel believes in: e to the entropy, from 1 to all of them."""
        return self.entropy.exp()

    def centres(self, machine: ScoreMachine) -> Float[Tensor, "b c h w"]:
        """The values of the best sources, as float64 in [-1, 1]: the picture that they alone would make."""
        best = (part[:, 0] for part in (self.image, self.element, self.row, self.col))
        return machine.dictionary.pixels(*best).movedim(-1, 1).cpu()

    def top_images(self, k: int) -> "TopImages":
        """The k training images that stand for most of each picture's pixels.

        Raises:
            InputError: for k below 1 or above the number of training images.
        """
        check_count("k, of training images,", k, most=len(self.by_image))
        scores, indices = self.by_image.T.sort(dim=1, descending=True, stable=True)
        return TopImages(indices[:, :k], scores[:, :k])

    @property
    def ambiguous(self) -> Bool[Tensor, "b h w"]:
        """Where the best source holds no more than half of the belief, as where two patches are equally near."""
        return self.weight[:, 0] < MAJORITY


def provenance(
    machine: ScoreMachine,
    x: Float[Tensor, "b c h w"],
    alpha_bar: AlphaBar,
    k: int = 5,
    labels: Int[Tensor, " b"] | int | None = None,
    pixel: tuple[int, int] | None = None,
) -> Provenance:
    """Trace every pixel to the training patches it is believed to come from.

    Args:
        machine: decides what a pixel looks at and which patches may stand in for it; at alpha_bar = 1 a schedule of
            windows gives that of its lowest noise level.
        x: pictures (B, C, H, W) at that noise level, float32 or float64, such as a step's ``state``; finished
            pictures in [-1, 1] at alpha_bar = 1.
        alpha_bar: signal share in [0, 1], one number or (B,); 1 is the limit of zero noise, where the nearest patches
            share all belief.
        k: how many sources to name for each pixel.
        labels: (B,) classes, or one for all; None uses every training image.
        pixel: row and column of the only pixel to trace, quickly; then H = W = 1 in what is returned.

    Raises:
        InputError: for a wrong shape or dtype, NaN, k < 1 or > 10,000, alpha_bar outside [0, 1], an unknown label, or
            a pixel outside the pictures.
    """
    traced = machine.trace(x, alpha_bar, labels, k, pixel)
    height, width = x.shape[2:]
    group = machine.dictionary.group
    orbit, position = traced.sources // (height * width), traced.sources % (height * width)
    missing = traced.sources < 0
    element = (orbit % len(group)).masked_fill(missing, 0)
    return Provenance(
        image=(orbit // len(group)).masked_fill(missing, -1),
        row=(position // width).masked_fill(missing, -1),
        col=(position % width).masked_fill(missing, -1),
        element=element,
        weight=(traced.logits - traced.log_totals[:, None]).exp().clamp(max=1),
        entropy=traced.entropies,
        by_image=traced.by_image.T,
        wraps=machine.rules.wraps,
        pixel=pixel,
    )
