"""Pictures that people bring: small files of known kinds, made to fit the training images."""

import base64
import binascii
import io

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from patchmosaic.data.decode import to_array
from patchmosaic.data.pixels import as_floats, resize, set_channels
from patchmosaic.errors import InputError

MAX_BYTES = 4 << 20
_MAX_PIXELS = 1 << 25
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")


def read_picture(content: bytes, shape: tuple[int, int, int]) -> UInt8[Tensor, "1 c h w"]:
    """A picture file as one more image of a data set: its centre square, resized.

    Args:
        content: of the file.
        shape: (C, H, W) of the training images.

    Raises:
        InputError: more than 4 MiB or 32 megapixels, or anything but a whole PNG, JPEG, WebP or GIF.
    """
    if len(content) > MAX_BYTES:
        raise InputError(f"the file has more than {MAX_BYTES >> 20} MiB: use a smaller picture")
    pixels = torch.from_numpy(_decode(content)).unsqueeze(0)
    return _fit(pixels, shape)


def read_drawing(pixels: object, shape: tuple[int, int, int]) -> UInt8[Tensor, "1 c h w"]:
    """Grey levels 0 to 255, C x H x W, as drawn on the page.

    Raises:
        InputError: other shapes or values.
    """
    if not _is_drawing(pixels, shape):
        raise InputError(f"a drawing is {' x '.join(map(str, shape))} whole numbers from 0 to 255")
    return torch.tensor([pixels], dtype=torch.uint8)


def _is_drawing(pixels: object, shape: tuple[int, ...]) -> bool:
    """Looked at number by number: an array of anything else may take any amount of memory."""
    if not shape:
        return type(pixels) is int and 0 <= pixels <= 255
    return (
        isinstance(pixels, list)
        and len(pixels) == shape[0]
        and all(_is_drawing(part, shape[1:]) for part in pixels)
    )


def encode_start(picture: UInt8[Tensor, "1 c h w"]) -> str:
    """A picture for a link: a PNG in URL-safe base64."""
    from PIL import Image

    array = picture[0].permute(1, 2, 0).numpy()
    content = io.BytesIO()
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(content, "PNG", optimize=True)
    return base64.urlsafe_b64encode(content.getvalue()).decode().rstrip("=")


def decode_start(text: str, shape: tuple[int, int, int]) -> Float[Tensor, "1 c h w"]:
    """The picture of a link, in [-1, 1].

    Raises:
        InputError: what :func:`encode_start` did not make, or made for images of another shape.
    """
    try:
        content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise InputError("the link's picture is damaged: draw or upload it again") from None
    pixels = torch.from_numpy(_decode(content)).unsqueeze(0)
    if pixels.shape[2:] != shape[1:]:
        raise InputError("the link's picture was made for other images: draw or upload it again")
    return as_floats(set_channels(pixels, shape[0]))


def _decode(content: bytes) -> UInt8[np.ndarray, "c h w"]:
    from PIL import Image

    too_large = InputError(f"the picture has more than {_MAX_PIXELS >> 20} megapixels: use a smaller one")
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise too_large
            return to_array(image, "the picture")
    except InputError:
        raise
    except Image.DecompressionBombError:
        raise too_large from None
    except Exception:  # Pillow's decoders fail with errors of many types
        raise InputError(f"that is no picture that can be read: give a {', '.join(_FORMATS)} file") from None


def _fit(pixels: UInt8[Tensor, "1 c h w"], shape: tuple[int, int, int]) -> UInt8[Tensor, "1 c h w"]:
    channels, height, width = shape
    square = resize(set_channels(pixels, channels), max(height, width))
    top, left = (square.shape[2] - height) // 2, (square.shape[3] - width) // 2
    return square[:, :, top : top + height, left : left + width]
