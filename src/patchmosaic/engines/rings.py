"""Posterior means of single pixels of noised images, for many windows and noise levels in one pass.

A noisy window is sqrt(ab) x + sqrt(1 - ab) eta, so the logit of a patch psi (Kamb & Ganguli 2025, eq. 7-10 and 41) is

    -ab / (2 (1 - ab)) |psi - x|^2 + sqrt(ab / (1 - ab)) <eta, psi - x>

up to what all patches share. Two sums over the window serve every noise level where the same clean image and the same
noise are used at each, and those of a window are those of the next smaller one and of the ring around it.
"""

import ctypes
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from patchmosaic.dictionary import Dictionary
from patchmosaic.engines.native import RingQuery, compiled, in_parallel, library
from patchmosaic.engines.windows import Frame, local_frame, pad
from patchmosaic.posterior import SoftmaxMean, empty, finalize, update
from patchmosaic.symmetry import Rules, position_blocks

_COMPILED_CHANNELS = (1, 3)


class PixelQueries(NamedTuple):
    """Pixels of images with noise: what :func:`ring_means` is asked about."""

    clean: Float[Tensor, "b c h w"]
    eta: Float[Tensor, "b c h w"]  # unit normal noise
    positions: Int[Tensor, "b k"]  # row * width + column


def ring_means(
    dictionary: Dictionary,
    rules: Rules,
    memory_budget: int,
    queries: PixelQueries,
    alpha_bars: Sequence[float],
    windows: Sequence[int],
    label: int | None = None,
    *,
    plain: bool = False,
) -> Float[Tensor, "levels windows b k c"]:
    """Posterior means at some pixels of sqrt(ab) clean + sqrt(1 - ab) eta, in float64.

    Args:
        dictionary: the training images, on a CPU.
        rules: which training positions may stand in for a pixel.
        memory_budget: bytes of working memory.
        queries: the pixels.
        alpha_bars: noise levels in [0, 1).
        windows: odd sizes, ascending.
        label: the class whose training images to use; None for all.
        plain: sum in plain torch and float64, as where there is no compiled library; else in float32, of which
            posterior means of the paper's data are good to 2e-5.
    """
    channels, height, width = dictionary.shape
    frame = local_frame(height, width, windows[-1], rules.padding) if rules.padding == "circular" else None
    fast = not plain and channels in _COMPILED_CHANNELS and library() is not None
    dtype = torch.float32 if fast else torch.float64
    levels = torch.tensor(alpha_bars, dtype=torch.float64)
    slopes = torch.stack([-levels / (2 * (1 - levels)), (levels / (1 - levels)).sqrt()], dim=1)
    plans = _plans(queries.positions.unique().tolist(), dictionary.shape, frame, rules, windows)
    clean, eta = (_flat(_padded(images.to(dtype), frame)) for images in (queries.clean, queries.eta))
    pixels = [
        (plans[position], clean[image], eta[image])
        for image, row in enumerate(queries.positions.tolist())
        for position in row
    ]
    kind: type[_PlainSums] | type[_CompiledSums] = _CompiledSums if fast else _PlainSums
    sums = [kind(*pixel, channels, slopes) for pixel in pixels]
    at_once = max(16, memory_budget // (3 * clean.shape[1] * clean.element_size()))
    for _, images in dictionary.chunks(dictionary.members(label), at_once, dtype):
        kind.add_all(sums, _flat(_padded(images, frame)))  # type: ignore[arg-type]
    means = torch.stack([pixel.means() for pixel in sums], dim=2)
    return means.unflatten(2, tuple(queries.positions.shape))


class _Plan(NamedTuple):
    """Where the numbers of a pixel's windows and of its keys are in a flattened image, window by window."""

    pixel: int
    keys: list[Int[Tensor, " k"]]  # each among those of the window before
    parents: list[Int[Tensor, " k"]]  # their places there
    steps: list[Int[Tensor, " d"]]  # from the pixel to what its window has beyond the window before


def _plans(
    positions: list[int],
    shape: tuple[int, int, int],
    frame: Frame | None,
    rules: Rules,
    windows: Sequence[int],
) -> dict[int, _Plan]:
    channels, height, width = shape
    top, left = (frame.top, frame.left) if frame else (0, 0)
    stride = _stride(width if frame is None else width + frame.width - 1)
    every = torch.arange(height * width)
    places = ((every // width + top) * stride + every % width + left) * channels
    by_window = [_keys_of(height, width, window, rules) for window in windows]
    found = {}
    for position in positions:
        keys = [of[position] for of in by_window]
        parents = [torch.searchsorted(a, b) for a, b in zip([keys[0], *keys[:-1]], keys, strict=True)]
        offsets = list(_rings(position, shape, frame, rules, windows))
        steps = [
            ((rows * stride + columns)[:, None] * channels + torch.arange(channels)).flatten()
            for rows, columns in offsets
        ]
        found[position] = _Plan(int(places[position]), [places[k] for k in keys], parents, steps)
    return found


@lru_cache(maxsize=64)
def _keys_of(height: int, width: int, window: int, rules: Rules) -> dict[int, Int[Tensor, " k"]]:
    """The key positions of every position."""
    return {
        position: keys
        for block in position_blocks(height, width, window, rules)
        for queries, keys in zip(block.queries.tolist(), block.keys, strict=True)
        for position in queries
    }


def _rings(
    position: int, shape: tuple[int, int, int], frame: Frame | None, rules: Rules, windows: Sequence[int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Offsets by row and column of each window's part beyond the window before.

    Where zeros lie outside the image, only those inside: pixel and key see the same border.
    """
    _, height, width = shape
    row, column = divmod(position, width)
    before = -1
    for window in windows:
        cut = local_frame(height, width, window, rules.padding)
        rows, columns = torch.meshgrid(
            torch.arange(-cut.top, cut.top + 1), torch.arange(-cut.left, cut.left + 1), indexing="ij"
        )
        wanted = torch.maximum(rows.abs(), columns.abs()) > before
        if frame is None:
            wanted &= (row + rows >= 0) & (row + rows < height)
            wanted &= (column + columns >= 0) & (column + columns < width)
        yield rows[wanted], columns[wanted]
        before = window // 2


def _stride(width: int) -> int:
    """Pixels from one row to the next: odd, so that a column does not fall on a few lines of the cache."""
    return width | 1


def _padded(images: Float[Tensor, "n c h w"], frame: Frame | None) -> Float[Tensor, "n c h2 w2"]:
    return images if frame is None else pad(images, frame)


def _flat(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
    """Row by row, the channels of a pixel side by side."""
    width = images.shape[3]
    return F.pad(images, (0, _stride(width) - width)).permute(0, 2, 3, 1).flatten(1)


class _PlainSums:
    """The posteriors of one pixel, in float64."""

    def __init__(self, plan: _Plan, clean: Tensor, eta: Tensor, channels: int, slopes: Tensor):
        self.plan, self.slopes, self.channels = plan, slopes, torch.arange(channels)
        self.numbers = [(s, clean[plan.pixel + s], eta[plan.pixel + s]) for s in plan.steps]
        self.states: list[SoftmaxMean] = [empty((len(slopes),), channels) for _ in plan.keys]

    @staticmethod
    def add_all(sums: Sequence["_PlainSums"], images: Float[Tensor, "n d"]) -> None:
        """Sum over the keys of some images, for each of the pixels."""
        for pixel in sums:
            pixel._add(images)

    def _add(self, images: Float[Tensor, "n d"]) -> None:
        distance = product = images.new_zeros(len(images), len(self.plan.keys[0]))
        for w, (keys, parents) in enumerate(zip(self.plan.keys, self.plan.parents, strict=True)):
            distance, product = distance[:, parents], product[:, parents]
            for step, clean, eta in zip(*self.numbers[w], strict=True):
                difference = images[:, keys + step] - clean
                distance += difference.square()
                product += difference * eta
            logits = self.slopes @ torch.stack([distance.flatten(), product.flatten()])
            values = images[:, keys[:, None] + self.channels].flatten(0, 1)
            self.states[w] = update(self.states[w], logits, values)

    def means(self) -> Float[Tensor, "levels windows c"]:
        """The posterior means."""
        return torch.stack([finalize(state) for state in self.states], dim=1)


class _CompiledSums:
    """The same by rings.cpp."""

    def __init__(self, plan: _Plan, clean: Tensor, eta: Tensor, channels: int, slopes: Tensor):
        steps = torch.cat(plan.steps)
        self._held = {
            "key_counts": _integers([len(keys) for keys in plan.keys]),
            "keys": _integers(torch.cat(plan.keys)),
            "parents": _integers(torch.cat(plan.parents)),
            "step_counts": _integers([len(steps) for steps in plan.steps]),
            "steps": _integers(steps),
            "clean": clean[plan.pixel + steps].numpy(),
            "eta": eta[plan.pixel + steps].numpy(),
            "slopes": (slopes / math.log(2)).float().contiguous().numpy(),
        }
        self.shape = len(plan.keys), len(slopes)
        pointers = {name: array.ctypes.data for name, array in self._held.items()}
        self.query = RingQuery(*self.shape, channels, **pointers)
        self.reference = np.full(self.shape, -1e30, np.float32)
        self.sums = np.zeros((*self.shape, 1 + channels))
        self.most_keys = len(plan.keys[0])

    @staticmethod
    def add_all(sums: Sequence["_CompiledSums"], images: Float[Tensor, "n d"]) -> None:
        """Sum over the keys of some images, for each of the pixels, on all threads."""
        found = compiled()
        lanes = found.ring_lanes()
        missing = -len(images) % lanes
        blocks = _aligned(F.pad(images, (0, 0, 0, missing)).unflatten(0, (-1, lanes)).transpose(1, 2))

        def add(i: int) -> None:
            pixel = sums[i]
            scratch = _aligned(torch.empty(2 * pixel.most_keys, lanes))
            found.ring_sums(
                ctypes.byref(pixel.query),
                blocks.data_ptr(),
                *blocks.shape[:2],
                lanes - missing,
                scratch.data_ptr(),
                pixel.reference.ctypes.data,
                pixel.sums.ctypes.data,
            )

        in_parallel(add, len(sums))

    def means(self) -> Float[Tensor, "levels windows c"]:
        """The posterior means."""
        return torch.from_numpy(self.sums[..., 1:] / self.sums[..., :1]).transpose(0, 1)


def _integers(values: Sequence[int] | Tensor) -> np.ndarray:
    return np.asarray(values, dtype=np.int32)


def _aligned(values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """A contiguous copy; torch aligns what it allocates to 64 bytes, as vectors are."""
    return values.clone(memory_format=torch.contiguous_format)
