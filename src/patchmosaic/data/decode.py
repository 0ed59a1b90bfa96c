"""From an encoded image to a uint8 array, with Pillow."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from patchmosaic.errors import InputError, refusing

if TYPE_CHECKING:
    from PIL import Image

GREY_MODES = ("1", "L", "LA", "La")
WIDE_GREY_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def decode(encoded: Path | bytes, where: str) -> np.ndarray:
    """Decode one image file.

    Args:
        encoded: a path, or the bytes of the file.
        where: what to call it in an error message.

    Returns:
        uint8 (1, H, W) if grey, else (3, H, W).

    Raises:
        InputError: the image cannot be decoded; Pillow's decoders fail with errors of many types.
    """
    from PIL import Image, UnidentifiedImageError

    with refusing(where, "replace or remove that image", Exception):
        try:
            opened = Image.open(encoded if isinstance(encoded, Path) else BytesIO(encoded))
        except UnidentifiedImageError:
            raise InputError(f"{where} is in no known image format: replace or remove that image") from None
        with opened as image:
            return to_array(image, where)


def to_array(image: Image.Image, where: str) -> np.ndarray:
    """Grey as uint8 (1, H, W), all else as RGB (3, H, W).

    The first frame counts, turned as its EXIF orientation says. Transparency is dropped and 16-bit grey
    rounded to 8 bits.

    Raises:
        InputError: pixels that are neither 8-bit nor 16-bit integers.
    """
    from PIL import ImageOps

    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in WIDE_GREY_MODES:
        return _narrowed(np.asarray(image), where)[None]
    if image.mode == "F":
        raise InputError(f"{where} has floating-point pixels: save it with 8 bits per channel")
    if image.mode in GREY_MODES:
        return np.array(image.convert("L"))[None]
    if image.mode == "P":
        image = image.convert("RGBA")  # straight to RGB, Pillow warns about transparent palette entries
    return np.array(np.asarray(image.convert("RGB")).transpose(2, 0, 1), order="C")


def _narrowed(wide: np.ndarray, where: str) -> np.ndarray:
    values = wide.astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise InputError(f"{where} has pixels beyond 16 bits: save it with 8 bits per channel")
    return ((values + 128) // 257).astype(np.uint8)
