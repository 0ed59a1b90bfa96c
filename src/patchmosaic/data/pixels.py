"""Channels, cropping and resizing, block by block."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from patchmosaic.data.source import Block
from patchmosaic.errors import InputError

PROGRESS_FROM = 3000
GREY_WEIGHTS = (0.299, 0.587, 0.114)
GREY_WEIGHTS_16_BIT = (19595, 38470, 7471)


def assemble(
    blocks: Iterable[Block], count: int, size: int | None, channels: int | None, name: str
) -> Tensor:
    """Gather blocks into one tensor, adjusting each as it comes so that no full-sized copy exists.

    Args:
        blocks: `count` images in all, at least one.
        count: number of images, N.
        size: side to which to crop and resize, or None.
        channels: 1, 3 or None; None keeps grey if all images are grey, else gives RGB.
        name: title of the progress bar.

    Returns:
        (N, C, H, W), uint8 or float32 as the blocks are.

    Raises:
        InputError: images of different shapes without a size.
    """
    from tqdm import tqdm

    gathered = torch.empty(0)
    done = 0
    with tqdm(total=count, desc=name, unit="image", disable=None if count > PROGRESS_FROM else True) as bar:
        for block in blocks:
            pixels = resize(set_channels(block.pixels, channels), size)
            if done == 0:
                gathered = torch.empty((count, *pixels.shape[1:]), dtype=pixels.dtype)
            if pixels.shape[2:] != gathered.shape[2:]:
                here, before = ("x".join(map(str, item.shape[2:])) for item in (pixels, gathered))
                raise InputError(
                    f"{block.where} is {here} where those before are {before}: pass size (--size)"
                )
            if pixels.shape[1] > gathered.shape[1]:
                gathered = set_channels(gathered, pixels.shape[1]).contiguous()
            gathered[done : done + len(pixels)] = pixels
            done += len(pixels)
            bar.update(len(pixels))
    return gathered


def set_channels(pixels: Tensor, channels: int | None) -> Tensor:
    """Repeat grey to RGB, or weigh RGB to grey (ITU-R BT.601, rounded as Pillow's mode "L" for uint8).

    Args:
        pixels: (b, c, h, w), uint8 or float32 in [-1, 1].
        channels: 1, 3, or None to keep c.
    """
    if channels is None or channels == pixels.shape[1]:
        return pixels
    if channels == 3:
        return pixels.expand(-1, 3, -1, -1)
    if pixels.dtype == torch.uint8:
        weights = torch.tensor(GREY_WEIGHTS_16_BIT, dtype=torch.int32).view(1, 3, 1, 1)
        total = (pixels * weights).sum(dim=1, keepdim=True, dtype=torch.int32)
        return ((total + 2**15) >> 16).to(torch.uint8)
    weights = torch.tensor(GREY_WEIGHTS).view(1, 3, 1, 1)
    return (pixels * weights).sum(dim=1, keepdim=True).clamp_(-1, 1)


def resize(pixels: Tensor, size: int | None) -> Tensor:
    """Crop the centre square and resize it to size by size, bilinear with antialiasing.

    Args:
        pixels: (b, c, h, w), uint8 or float32 in [-1, 1].
        size: side of the result, or None to leave the images as they are.
    """
    height, width = pixels.shape[2:]
    if size is None or height == width == size:
        return pixels
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels[:, :, top : top + side, left : left + side].contiguous()
    if side == size:
        return square
    # One channel at a time: PyTorch's uint8 kernel for RGB fails an internal check when the result is 1x1.
    planes = square.flatten(0, 1).unsqueeze(1)
    resized = F.interpolate(planes, (size, size), mode="bilinear", antialias=True, align_corners=False)
    resized = resized.view(*pixels.shape[:2], size, size)
    return resized if resized.dtype == torch.uint8 else resized.clamp_(-1, 1)


def check_scale(low: float, high: float, what: str) -> None:
    """InputError for floats from ``low`` to ``high`` if none lies below 0, as in [0, 1]; equal ones pass."""
    if 0 <= low < high:
        raise InputError(
            f"{what} lie in [{low:.4g}, {high:.4g}], where 0 is mid-grey: "
            "give 2 * x - 1 if 0 means black, or bytes, which leave no doubt"
        )


def as_floats(pixels: Tensor) -> Tensor:
    """Float32 in [-1, 1] from uint8; anything else as it is."""
    return pixels.float().div_(127.5).sub_(1) if pixels.dtype == torch.uint8 else pixels


def as_bytes(pixels: Tensor) -> Tensor:
    """Uint8 from floats in [-1, 1], clamped and rounded as their dtype does it."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
