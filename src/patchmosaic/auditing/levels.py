"""Pictures as the audit compares them: bytes, 0 to 255."""

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from patchmosaic.data.pixels import as_bytes, check_scale
from patchmosaic.errors import InputError, check_count

_BEYOND = 2.0  # networks overshoot [-1, 1]; pictures in 0..255 do so by far


def grey_levels(images: Tensor | np.ndarray, what: str) -> UInt8[Tensor, "n c h w"]:
    """Images as bytes.

    Args:
        images: (N, C, H, W), uint8, or floats in [-1, 1], which are rounded; those beyond are clamped.
        what: their name in messages.

    Raises:
        InputError: anything else.
    """
    if not isinstance(images, Tensor | np.ndarray):
        raise InputError(f"{what} must be a torch tensor or a numpy array, not {type(images).__name__}")
    images = torch.as_tensor(images).detach().cpu()
    if images.ndim != 4 or min(images.shape) == 0:
        raise InputError(f"{what} must have shape (N, C, H, W) with nothing empty, not {tuple(images.shape)}")
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise InputError(f"{what} must be floats or uint8, not {str(images.dtype).split('.')[-1]}")
    if not bool(images.isfinite().all()):
        raise InputError(f"{what} contain NaN or infinity: remove those first")
    if float(images.abs().max()) > _BEYOND:
        low, high = (float(bound) for bound in images.aminmax())
        raise InputError(f"{what} must be scaled to [-1, 1], but span [{low:.4g}, {high:.4g}]")
    return as_bytes(images)


def given_levels(images: Tensor | np.ndarray, what: str) -> UInt8[Tensor, "n c h w"]:
    """:func:`grey_levels` of what a caller gives: InputError, too, for floats none of which lies below 0."""
    levels = grey_levels(images, what)
    floats = torch.as_tensor(images)
    if floats.is_floating_point():
        low, high = (float(bound) for bound in floats.detach().aminmax())
        check_scale(low, high, what)
    return levels


def check_alike(images: Tensor, training: Tensor, what: str) -> None:
    """InputError where shapes differ."""
    if images.shape[1:] == training.shape[1:]:
        return
    found, expected = (
        f"{shape[2]}x{shape[1]} with {shape[0]} channel{'s' * (shape[0] > 1)}"
        for shape in (images.shape[1:], training.shape[1:])
    )
    raise InputError(
        f"{what} are {found}, the training images {expected}: load both at one size and with the same channels "
        "(--size, --channels)"
    )


def choose_window(shape: tuple[int, ...], window: int | None) -> int:
    """The given window if it can be used, else 7, or less for pictures smaller than 12 pixels.

    Args:
        shape: (C, H, W).
        window: odd side in pixels, or None.
    """
    side = min(shape[1:])
    largest = min(side, int((150 / shape[0]) ** 0.5))
    largest -= 1 - largest % 2
    if largest < 3:
        raise InputError(
            f"pictures of {shape[0]}x{shape[1]}x{shape[2]} are too small, or have too many channels"
        )
    if window is None:
        return min(7 if side >= 12 else 5 if side >= 8 else 3, largest)
    if check_count("the window", window) % 2 == 0 or not 3 <= window <= largest:
        raise InputError(f"the window must be odd, from 3 to {largest}, not {window}")
    return window
