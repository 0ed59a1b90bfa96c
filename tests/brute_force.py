"""The posterior mean written out with Python loops: slow, literal, and sharing no code with the library.

Equation numbers are those of Kamb & Ganguli, arXiv 2412.20292. Every machine is

    logit(psi) = -|phi_window - sqrt(ab) psi_window|^2 / (2 (1 - ab))
    D(x)       = sum softmax(logit) psi(centre)

and they differ in the window and in which training positions may stand in for x.
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np

DIGITS = 50
GROUPS = ("identity", "flip", "rotations", "d4")


def border_signature(i: int, j: int, height: int, width: int, window: int) -> tuple[int, int, int, int]:
    """What a window centred on pixel (i, j) sees of the border: rows above, below, columns left, right."""
    r = (window - 1) // 2
    return min(i, r), min(height - 1 - i, r), min(j, r), min(width - 1 - j, r)


def cut_window(image, i: int, j: int, window: int, padding: str) -> list:
    """The window centred on (i, j) of one image (nested lists, C x H x W), as a flat list."""
    height, width = len(image[0]), len(image[0][0])
    r = (window - 1) // 2
    values = []
    for channel in image:
        for k in range(i - r, i + r + 1):
            for m in range(j - r, j + r + 1):
                if padding == "circular":
                    values.append(channel[k % height][m % width])
                elif 0 <= k < height and 0 <= m < width:
                    values.append(channel[k][m])
                else:
                    values.append(0 * channel[0][0])
    return values


def circular_translate(image, down: int, right: int) -> list:
    """The image with every pixel moved `down` rows and `right` columns, wrapping around."""
    height, width = len(image[0]), len(image[0][0])
    return [
        [[channel[(i - down) % height][(j - right) % width] for j in range(width)] for i in range(height)]
        for channel in image
    ]


def posterior_mean(
    x,
    images,
    alpha_bar: float,
    *,
    window: int | None,
    translation: bool,
    padding: str,
    keys: str = "all",
    exact: bool = False,
) -> np.ndarray:
    """D for one query x (C, H, W) and training images (N, C, H, W), as float64 (C, H, W).

    window=None weighs whole images; an odd integer weighs window x window patches, pixel by pixel.
    exact=True computes with 50 decimal digits instead of float64.
    """
    if padding not in ("zeros", "circular") or keys not in ("all", "inside"):
        raise ValueError("unknown padding or keys")
    if window is not None and (window < 1 or window % 2 == 0):
        raise ValueError("the window must be odd")
    if keys == "inside" and not (window is not None and translation and padding == "circular"):
        raise ValueError("keys='inside' is for a wrapped window that may move")
    if not 0.0 <= alpha_bar < 1.0:
        raise ValueError("alpha_bar must lie in [0, 1)")
    x = np.asarray(x, dtype=np.float64).tolist()
    images = np.asarray(images, dtype=np.float64).tolist()
    if not exact:
        return _posterior_mean(x, images, float(alpha_bar), window, translation, padding, keys, _Double)
    with localcontext() as context:
        context.prec = DIGITS
        ab = Decimal(float(alpha_bar))
        return _posterior_mean(
            _decimals(x), _decimals(images), ab, window, translation, padding, keys, _Decimal
        )


class _Double:
    sqrt, exp, total = math.sqrt, math.exp, math.fsum


class _Decimal:
    sqrt, exp, total = Decimal.sqrt, Decimal.exp, sum


def _decimals(nested):
    return [_decimals(entry) for entry in nested] if isinstance(nested, list) else Decimal(nested)


def _scaled(values, ab, number) -> list:
    scale = number.sqrt(ab)
    return [scale * value for value in values]


def _weights(query, candidates, ab, number) -> list:
    """exp(logit - max logit) for each candidate; query and sqrt(ab) times candidates are flat lists."""
    logits = []
    for candidate in candidates:
        differences = [a - b for a, b in zip(query, candidate, strict=True)]
        distance = number.total([d * d for d in differences])
        logits.append(-distance / (2 * (1 - ab)))
    largest = max(logits)
    return [number.exp(logit - largest) for logit in logits]


def _average(weights, values, number):
    return number.total([w * v for w, v in zip(weights, values, strict=True)]) / number.total(weights)


def _flat(image) -> list:
    return [value for channel in image for row in channel for value in row]


def _posterior_mean(x, images, ab, window, translation, padding, keys, number) -> np.ndarray:
    channels, height, width = len(x), len(x[0]), len(x[0][0])
    answer = np.zeros((channels, height, width))

    if window is None:
        # IS (eq. 3-4), and ES (eq. 5-6) where the border does not tell the translates apart.
        candidates = []
        for image in images:
            if translation and padding == "circular":
                for down in range(height):
                    for right in range(width):
                        candidates.append(circular_translate(image, down, right))
            else:
                candidates.append(image)
        scaled = [_scaled(_flat(candidate), ab, number) for candidate in candidates]
        weights = _weights(_flat(x), scaled, ab, number)
        for c in range(channels):
            for i in range(height):
                for j in range(width):
                    values = [candidate[c][i][j] for candidate in candidates]
                    answer[c, i, j] = float(_average(weights, values, number))
        return answer

    patches = []
    for image in images:
        for i in range(height):
            for j in range(width):
                centre = [image[c][i][j] for c in range(channels)]
                patch = cut_window(image, i, j, window, padding)
                patches.append((i, j, centre, _scaled(patch, ab, number)))

    r = (window - 1) // 2
    for i in range(height):
        for j in range(width):
            here = border_signature(i, j, height, width, window)
            allowed = []
            for k, m, centre, patch in patches:
                if not translation:  # LS, eq. 7-8
                    may_stand_in = (k, m) == (i, j)
                elif padding == "zeros":  # bbELS, eq. 41
                    may_stand_in = border_signature(k, m, height, width, window) == here
                elif keys == "inside":
                    may_stand_in = r <= k <= height - 1 - r and r <= m <= width - 1 - r
                else:  # ELS, eq. 9-10
                    may_stand_in = True
                if may_stand_in:
                    allowed.append((centre, patch))
            if not allowed:
                raise ValueError("no training position may stand in for this pixel")
            query = cut_window(x, i, j, window, padding)
            weights = _weights(query, [patch for _, patch in allowed], ab, number)
            for c in range(channels):
                answer[c, i, j] = float(_average(weights, [centre[c] for centre, _ in allowed], number))
    return answer


def _quarter_turn(images: np.ndarray) -> np.ndarray:
    height, width = images.shape[-2:]
    if height != width:
        raise ValueError("only square images can be turned by 90 degrees")
    turned = np.empty_like(images)
    for i in range(height):
        for j in range(width):
            turned[..., i, j] = images[..., j, width - 1 - i]
    return turned


def transformed_images(images, group: str) -> np.ndarray:
    """Every image under every element of the point group, stacked: |group| x N images (theorem B.2)."""
    images = np.asarray(images)
    mirrored = images[..., ::-1]
    if group == "identity":
        parts = [images]
    elif group == "flip":
        parts = [images, mirrored]
    elif group in ("rotations", "d4"):
        parts = []
        for start in [images] if group == "rotations" else [images, mirrored]:
            for _ in range(4):
                parts.append(start)
                start = _quarter_turn(start)
    else:
        raise ValueError(f"unknown group {group!r}")
    return np.concatenate(parts, axis=0)
