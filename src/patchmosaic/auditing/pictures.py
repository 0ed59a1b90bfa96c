"""The evidence: a picture, where its largest fragment comes from, and how they differ."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from patchmosaic.auditing.fragments import Fragment

_DIM = 0.25
_AMPLIFIED = 4


def panels(
    picture: UInt8[Tensor, "c h w"], training: UInt8[Tensor, "n c h w"], fragment: Fragment
) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "3 h w"], Float[Tensor, "3 h w"]]:
    """Pictures in [-1, 1].

    Returns:
        The picture; the training image, dim where it is not copied; the absolute difference times four on the copied
        part, blank elsewhere.
    """
    source, mask = training[fragment.image], torch.from_numpy(fragment.mask)
    dy, dx = fragment.offset
    lit = torch.zeros_like(mask)
    rows, columns = mask.nonzero().T
    lit[rows + dy, columns + dx] = True
    difference = torch.full(picture.shape, 255.0)
    moved = source[:, rows + dy, columns + dx].float()
    difference[:, rows, columns] = _AMPLIFIED * (picture[:, rows, columns].float() - moved).abs()
    dimmed = source.float() * torch.where(lit, 1.0, _DIM) + 255 * (1 - _DIM) * ~lit
    return _shown(picture.float()), _shown(dimmed), _shown(difference)


def _shown(image: Tensor) -> Tensor:
    return (image.clamp(0, 255) / 127.5 - 1).expand(3, -1, -1)
