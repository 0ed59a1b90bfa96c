"""Which parts of a picture are copied: windows that agree with a training image at one offset, and their unions.

A window of the picture agrees with a training image at an offset where the root mean square difference is within
the window's tolerance. It is evidence where it is textured, too: a flat window agrees with any flat one. A fragment is
a connected union of windows that agree with one training image at one offset; only pixels of its textured windows
count.
"""

from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

RELATIVE = 0.4  # tolerance of a window, in units of its texture
TOLERANCE = 12.0  # and at most, in grey levels
TEXTURED = 8.0  # standard deviation, in grey levels, from which a window says something
FLAT = 2.0  # tolerance of a window without texture

Mask = np.ndarray


@dataclass(frozen=True, eq=False)
class Fragment:
    """A part of a picture that is also in a training image.

    Attributes:
        image: index of the training image.
        offset: (dy, dx): pixel (y, x) of the picture is pixel (y + dy, x + dx) of the training image.
        area: its pixels, without those of flat windows.
        box: (top, left, bottom, right) in the picture, the last two exclusive.
        mask: bool (H, W), True at its pixels.
    """

    image: int
    offset: tuple[int, int]
    area: int
    box: tuple[int, int, int, int]
    mask: Mask = field(repr=False)


@dataclass(frozen=True, eq=False)
class Texture:
    """How much every window of a picture varies, and how far it may be from another to be called its copy.

    Attributes:
        window: side of the windows.
        limits: (H - window + 1, W - window + 1), the largest mean squared difference, in squared grey levels.
        textured: of the same shape, whether a window says something.
    """

    window: int
    limits: np.ndarray
    textured: Mask

    @classmethod
    def of(cls, picture: np.ndarray, window: int) -> "Texture":
        """Of a picture (C, H, W) in grey levels."""
        values = picture.astype(np.float64)
        means = np.stack([mean(channel, window) for channel in values])
        variance = (np.stack([mean(channel**2, window) for channel in values]) - means**2).mean(0).clip(0)
        limits = np.clip(RELATIVE**2 * variance, FLAT**2, TOLERANCE**2)
        return cls(window, limits, variance >= TEXTURED**2)

    @property
    def pixels(self) -> Mask:
        """(H, W): the pixels of textured windows."""
        return spread(self.textured, self.window)


def mean(values: np.ndarray, window: int) -> np.ndarray:
    """Means over the windows of the last two dimensions."""
    pad = [(0, 0)] * (values.ndim - 2) + [(1, 0), (1, 0)]
    sums = np.pad(values, pad).cumsum(-1).cumsum(-2)
    low, high = slice(None, -window), slice(window, None)
    whole = sums[..., high, high] - sums[..., low, high] - sums[..., high, low] + sums[..., low, low]
    return whole / window**2


def spread(windows: Mask, window: int) -> Mask:
    """The pixels covered by some windows (..., H - window + 1, W - window + 1)."""
    edge = window - 1
    pad = [(0, 0)] * (windows.ndim - 2) + [(edge, edge), (edge, edge)]
    rows = sliding_window_view(np.pad(windows, pad), window, -2).max(-1)
    covered: Mask = sliding_window_view(rows, window, -1).max(-1)
    return covered


def differences(picture: np.ndarray, sources: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Squared differences (K, H, W), mean over channels; 1e9 outside the source.

    Args:
        picture: (C, H, W) in grey levels.
        sources: (K, C, H, W), one for each offset.
        offsets: (K, 2).
    """
    height, width = picture.shape[1:]
    rows = np.arange(height) + offsets[:, :1]
    columns = np.arange(width) + offsets[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
    index = np.arange(len(sources))[:, None, None]
    moved = sources.transpose(0, 2, 3, 1)[
        index, rows.clip(0, height - 1)[:, :, None], columns.clip(0, width - 1)[:, None]
    ]
    square = ((moved.astype(np.float64) - picture.transpose(1, 2, 0)) ** 2).mean(-1)
    return np.where(inside, square, 1e9)


def fragments(
    texture: Texture, images: np.ndarray, offsets: np.ndarray, square: np.ndarray
) -> list[Fragment]:
    """Disjoint fragments of at least a window, the largest first; each pixel belongs to the largest that has it.

    Args:
        texture: of the picture.
        images: (K,) indices of training images.
        offsets: (K, 2).
        square: from :func:`differences`.
    """
    from skimage.measure import label

    agree = mean(square, texture.window) <= texture.limits
    evidence = spread(agree & texture.textured, texture.window)
    regions = spread(agree, texture.window)
    queue = []
    for k in range(len(images)):
        labels = label(regions[k], connectivity=1)
        for number in np.unique(labels[evidence[k]]):
            mask = evidence[k] & (labels == number)
            queue.append((-int(mask.sum()), k, int(number), mask))
    heapify(queue)
    free, found = np.ones(square.shape[1:], dtype=bool), []
    while queue:
        _, k, number, mask = heappop(queue)
        left = mask & free
        area = int(left.sum())
        if area < texture.window**2:
            continue
        if area < int(mask.sum()):
            heappush(queue, (-area, k, number, left))
            continue
        free &= ~left
        found.append(_fragment(int(images[k]), offsets[k], left))
    return found


def _fragment(image: int, offset: np.ndarray, mask: Mask) -> Fragment:
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    box = (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    return Fragment(image, (int(offset[0]), int(offset[1])), int(mask.sum()), box, mask)
