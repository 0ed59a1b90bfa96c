"""The evidence: a picture, where its largest fragment comes from, and how they differ."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from patchmosaic.auditing.fragments import Fragment
from patchmosaic.data.pixels import as_floats
from patchmosaic.viz import spotlight

_AMPLIFIED = 4


def panels(
    picture: UInt8[Tensor, "c h w"], training: UInt8[Tensor, "n c h w"], fragment: Fragment
) -> tuple[Float[Tensor, "c h w"], Float[Tensor, "c h w"], Float[Tensor, "c h w"]]:
    """Pictures in [-1, 1].

    Returns:
        The picture; the training image, pale where it is not copied; the absolute difference times four on the copied
        part, blank elsewhere.
    """
    shown, source = as_floats(picture), as_floats(training[fragment.image])
    dy, dx = fragment.offset
    rows, columns = fragment.mask.nonzero()
    lit = torch.zeros(fragment.mask.shape, dtype=torch.bool)
    lit[rows + dy, columns + dx] = True
    difference = torch.ones_like(shown)
    moved = source[:, rows + dy, columns + dx]
    difference[:, rows, columns] = (_AMPLIFIED * (shown[:, rows, columns] - moved).abs() - 1).clamp(max=1)
    return shown, spotlight(source, lit), difference
