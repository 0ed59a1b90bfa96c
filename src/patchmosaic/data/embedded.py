"""Data sets that need no file: scikit-learn's digits and the two-tone pair."""

from __future__ import annotations

import numpy as np

from patchmosaic.data.arrays import array_source
from patchmosaic.data.source import Source

TWO_TONE_SIZE = 16


def digits_source() -> Source:
    """1,797 handwritten digits, grey, 8 by 8, 17 levels v = 0..16 given as v / 8 - 1; labels 0..9.

    Source: the UCI optical recognition test set as shipped with scikit-learn (`load_digits`).
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images / 8 - 1).astype(np.float32)
    return array_source("digits", "digits", images, digits.target, tuple(map(str, digits.target_names)))


def two_tone_source(size: int | None) -> Source:
    """One black (-1) and one white (+1) grey image, size by size (16 by default), without labels.

    Source: figure 3 of Kamb & Ganguli, ICML 2025 (arXiv 2412.20292).
    """
    side = size or TWO_TONE_SIZE
    images = np.ones((2, 1, side, side), dtype=np.float32)
    images[0] = -1
    return array_source("two-tone", "two-tone", images)
