"""Local consistency: whether every pixel is the centre of its nearest training patch (theorem 4.1, fig. 3c)."""

from typing import NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

from patchmosaic.explain.provenance import provenance
from patchmosaic.machine import ScoreMachine

ONE_LEVEL = 2 / 255  # of an 8-bit picture


class Consistency(NamedTuple):
    """How locally consistent some pictures are."""

    consistent: Bool[Tensor, "b h w"]
    share: Float[Tensor, " b"]
    distance: Float[Tensor, "b h w"]
    """From each pixel to the centre of its nearest patch: the largest difference in any channel, in [0, 2]."""


def local_consistency(
    machine: ScoreMachine,
    images: Float[Tensor, "b c h w"],
    labels: Int[Tensor, " b"] | int | None = None,
    tolerance: float = ONE_LEVEL,
) -> Consistency:
    """Compare every pixel with the centre of its nearest training patch.

    In the limit of many steps the reverse flow of a local machine ends in pictures for which they are equal (Kamb &
    Ganguli 2025, theorem 4.1). After few steps many pixels differ: on digits with P = 5, half of them after 5 steps.

    Args:
        machine: what the patches are; of a schedule of windows, that of its lowest noise level counts.
        images: finished pictures in [-1, 1].
        labels: (B,) classes, or one for all; None uses every training image.
        tolerance: the largest difference in any channel that counts as equal, in the units of pixels.

    Raises:
        InputError: as :func:`provenance`.
    """
    return consistency(images, provenance(machine, images, 1.0, 1, labels).centres(machine), tolerance)


def consistency(
    images: Float[Tensor, "b c h w"], centres: Float[Tensor, "b c h w"], tolerance: float = ONE_LEVEL
) -> Consistency:
    """:func:`local_consistency` of images whose nearest patches are known.

    Args:
        images: finished pictures in [-1, 1].
        centres: of the nearest patches, as :meth:`Provenance.centres` gives them at alpha_bar = 1.
        tolerance: as for :func:`local_consistency`.
    """
    distance = (images.double().cpu() - centres).abs().amax(1)
    consistent = distance <= tolerance
    return Consistency(consistent, consistent.double().mean((1, 2)), distance)
