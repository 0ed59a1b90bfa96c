"""Cutting windows out of images, the positions they are cut at, and the queries made of them."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from patchmosaic.symmetry import Block, Rules, position_blocks

_CACHE_NUMBERS = 1 << 18  # tiles beyond this leave the processor's cache and gain nothing
_BYTES_PER_NUMBER = 48  # a float64 with the copies made on its way


class Frame(NamedTuple):
    """How windows are cut: their size, how far they reach up and left of a position, and the padding."""

    height: int
    width: int
    top: int
    left: int
    padding: str


def frame_and_blocks(
    height: int, width: int, window: int | None, rules: Rules
) -> tuple[Frame, tuple[Block, ...]]:
    """How windows are cut, and which positions may stand in for which.

    A whole image is one query; its keys are all translates where the image wraps around, else only itself.
    """
    if window is not None:
        return local_frame(height, width, window, rules.padding), position_blocks(
            height, width, window, rules
        )
    keys = torch.arange(height * width if rules.wraps else 1)[None]
    return Frame(height, width, 0, 0, "circular"), (Block(torch.zeros(1, 1, dtype=torch.long), keys),)


def local_frame(height: int, width: int, window: int, padding: str) -> Frame:
    """A window around a pixel; where zeros lie outside, what reaches past every border adds nothing."""
    rows = columns = window // 2
    if padding == "zeros":
        rows, columns = min(rows, height - 1), min(columns, width - 1)
    return Frame(2 * rows + 1, 2 * columns + 1, rows, columns, padding)


def tile_size(memory_budget: int) -> int:
    """Numbers that a tile may hold, in logits or in keys."""
    return max(1, min(_CACHE_NUMBERS, memory_budget // _BYTES_PER_NUMBER))


def pad(images: Float[Tensor, "n c h w"], frame: Frame) -> Float[Tensor, "n c h2 w2"]:
    """Images with all that windows see around them."""
    height, width = images.shape[2:]
    bottom, right = frame.height - 1 - frame.top, frame.width - 1 - frame.left
    if frame.padding == "zeros":
        return F.pad(images, (frame.left, right, frame.top, bottom))
    rows = torch.arange(-frame.top, height + bottom, device=images.device) % height
    columns = torch.arange(-frame.left, width + right, device=images.device) % width
    return images[:, :, rows][:, :, :, columns]


def features(
    padded: Float[Tensor, "n c h2 w2"], frame: Frame, positions: Int[Tensor, "g k"]
) -> Float[Tensor, "g n*k d"]:
    """The windows at ``positions`` of every padded image, flattened, class by class."""
    windows = padded.unfold(2, frame.height, 1).unfold(3, frame.width, 1)
    rows, columns = positions // windows.shape[3], positions % windows.shape[3]
    return (
        windows[:, :, rows, columns]
        .permute(2, 0, 3, 1, 4, 5)
        .reshape(len(positions), len(padded) * positions.shape[1], -1)
    )


def scaled(phi: Float[Tensor, "g q d"], alpha_bar: float, variance: float) -> Float[Tensor, "g q d1"]:
    """Query features whose product with (psi, |psi|^2) is the logit, up to what cancels."""
    precision = 1 / variance
    return F.pad(phi * (alpha_bar**0.5 * precision), (0, 1), value=-alpha_bar * precision / 2)
