"""The fast CPU engine: box sums of shifted squared differences, compiled (box.cpp).

For every shift between pixel and patch the squared differences are computed once, and each window is a running
sum of them, so a pair of pixel and patch costs the same for any window. Nothing is approximated: patches are
left out only where their weights together stay below 1e-7 of the pixel's.
"""

import ctypes
import math
import os
import sys
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, reduce
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchmosaic.dictionary import Dictionary
from patchmosaic.engines.base import Engine
from patchmosaic.engines.dense import DenseEngine
from patchmosaic.engines.native import library
from patchmosaic.errors import InputError
from patchmosaic.posterior import SoftmaxMean, finalize, merge
from patchmosaic.symmetry import Rules

_LEFT_OUT = 1e-7  # bound on the share of a pixel's weight that is skipped
_MAX_ERROR = 3e-4  # in the log2 of a weight, before an answer is computed anew in float64
_FLOAT32 = 2.0**-24
_ITEMS_AT_ONCE = 16
_DIRECT_RADII = (1, 2)  # of windows small enough to be added up term by term


class BoxEngine(Engine):
    """Local machines on a CPU in float32; everything else goes to the dense engine.

    Differences are float32; windows of 3 and 5 are summed in float32, larger ones in float64. The rounding error
    of the log-weights is estimated for every sample; where it could exceed 3e-4 (very low noise, far from all
    data), the sample is done again with float64 sums, then by the dense engine. See docs/engines.md.
    """

    def __init__(self, dictionary: Dictionary, rules: Rules, memory_budget: int):
        super().__init__(dictionary, rules, memory_budget)
        _library()
        self._dense = DenseEngine(dictionary, rules, memory_budget)
        self._layouts = _Layouts(dictionary)

    def posterior_mean(
        self, x: Float[Tensor, "b c h w"], alpha_bars: list[float], window: int | None, label: int | None
    ) -> Float[Tensor, "b c h w"]:
        """See :meth:`Engine.posterior_mean`."""
        if window is None or x.dtype != torch.float32 or x.device.type != "cpu":
            return self._dense.posterior_mean(x, alpha_bars, window, label)
        mean = torch.empty_like(x)
        rows = torch.arange(len(x))
        for direct in (True, False) if window // 2 in _DIRECT_RADII else (False,):
            levels = [alpha_bars[i] for i in rows]
            sums = self.sums(x[rows], levels, [window], label, direct)
            mean[rows] = finalize(sums)[:, 0].transpose(1, 2).reshape(-1, *x.shape[1:]).float()
            rows = rows[_log_error(sums.maximum[:, 0], x.shape[1] * window**2, direct) > _MAX_ERROR]
            if len(rows) == 0:
                return mean
        levels = [alpha_bars[i] for i in rows]
        mean[rows] = self._dense.posterior_mean(x[rows].double(), levels, window, label).float()
        return mean

    def sums(
        self,
        x: Float[Tensor, "b c h w"],
        alpha_bars: list[float],
        windows: list[int],
        label: int | None,
        direct: bool = False,
    ) -> SoftmaxMean:
        """The sums for several windows from one pass over the images.

        Args:
            x: noisy images, float32.
            alpha_bars: one noise level per image.
            windows: odd sizes.
            label: the class whose training images to use; None for all.
            direct: add up a single small window in float32 instead of keeping running sums in float64.

        Returns:
            The sums over all keys, of shape (batch, windows, height * width).
        """
        batch, channels, height, width = x.shape
        layout = self._layouts.of(label)
        radii = [self._radius(window, height, width) for window in windows]
        symmetry, first, shifts = self._row_shifts(min(radii), height)
        items = layout.blocks * shifts
        workers = max(1, min(torch.get_num_threads(), items))
        shape = (workers, batch, len(windows), height * width)
        smallest = torch.full(shape, 1e300, dtype=torch.float64)
        total, weighted = torch.zeros_like(smallest), torch.zeros(*shape, channels, dtype=torch.float64)
        precision = 0.5 / math.log(2) / (1 - torch.tensor(alpha_bars, dtype=torch.float64))
        signal = torch.tensor([math.sqrt(a) for a in alpha_bars], dtype=torch.float64)
        queries = x.permute(0, 2, 3, 1).contiguous()
        radii_tensor = torch.tensor(radii, dtype=torch.int32)
        skip = math.log2(_LEFT_OUT / (layout.images * height * width))
        native = _library()

        stopped = threading.Event()

        def work(worker: int) -> None:
            scratch = _scratch.address(native.box_scratch(height, width, channels, len(windows)))
            first_item, end = (items * (worker + i) // workers for i in (0, 1))
            at_once = max(shifts, _ITEMS_AT_ONCE)  # then the interpreter gets a chance to stop
            for item in range(first_item, end, at_once):
                if stopped.is_set():
                    return
                native.box_sums(
                    symmetry,
                    self.rules.padding == "circular",
                    *(height, width, channels, len(windows)),
                    radii_tensor.data_ptr(),
                    direct,
                    layout.codes.data_ptr(),
                    None if layout.levels is None else layout.levels.data_ptr(),
                    layout.images,
                    batch,
                    *(queries.data_ptr(), signal.data_ptr(), precision.data_ptr()),
                    skip,
                    *(first, shifts),
                    *(item, min(end, item + at_once)),
                    scratch,
                    *(sums[worker].data_ptr() for sums in (smallest, total, weighted)),
                )

        try:
            list(_pool(torch.get_num_threads()).map(work, range(workers)))
        finally:
            stopped.set()
        maximum = -math.log(2) * smallest * precision.view(-1, 1, 1)
        return reduce(merge, map(SoftmaxMean, maximum, total, weighted))

    def _radius(self, window: int, height: int, width: int) -> int:
        """Half the window; where zeros lie outside the image, no more than reaches all of it."""
        radius = window // 2
        return radius if self.rules.padding == "circular" else min(radius, max(height, width) - 1)

    def _row_shifts(self, radius: int, height: int) -> tuple[int, int, int]:
        """The kernel's name for the symmetry, the first row shift between pixel and patch, and their number."""
        if not self.rules.translation:
            return 0, 0, 1
        if self.rules.padding == "zeros":
            reach = max(0, height - 2 * radius - 1)
            return 1, -reach, 2 * reach + 1
        if self.rules.keys == "all":
            return 2, 0, height
        return 3, 1 - height, 2 * height - 1


class _Layout(NamedTuple):
    """Training images in the kernel's order (blocks, height, width, channels, lanes)."""

    codes: Tensor
    levels: Tensor | None
    images: int
    blocks: int


class _Layouts:
    """The layouts used last: one, or as many as take at most 2.5 times the memory of the images."""

    def __init__(self, dictionary: Dictionary):
        self.dictionary = dictionary
        self.kept: OrderedDict[int | None, _Layout] = OrderedDict()

    def of(self, label: int | None) -> _Layout:
        """All images of a class, or all images."""
        if label not in self.kept:
            self.kept[label] = self._make(self.dictionary.members(label))
            while len(self.kept) > 1 and self.nbytes() > 2.5 * self.dictionary.nbytes:
                self.kept.popitem(last=False)
        self.kept.move_to_end(label)
        return self.kept[label]

    def nbytes(self) -> int:
        """Bytes held."""
        return sum(layout.codes.nbytes for layout in self.kept.values())

    def _make(self, members: Int[Tensor, " m"]) -> _Layout:
        levels = self.dictionary.levels
        dtype = torch.float32 if levels is None else torch.uint8
        lanes = _library().box_lanes()
        images = len(members) * len(self.dictionary.group)
        blocks = -(-images // lanes)
        channels, height, width = self.dictionary.shape
        codes = torch.zeros(blocks, height, width, channels, lanes, dtype=dtype)
        filled = 0
        for part in members.split(lanes):
            for stored in self.dictionary.stored(part):
                for image in stored.to(dtype).permute(2, 3, 1, 0).split(1, dim=-1):
                    block, lane = divmod(filled, lanes)
                    codes[block, ..., lane : lane + 1] = image
                    filled += 1
        return _Layout(codes, None if levels is None else levels.float(), images, blocks)


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="patchmosaic")


if sys.platform != "win32":  # threads do not survive a fork
    os.register_at_fork(after_in_child=_pool.cache_clear)


class _Kept(threading.local):
    """Memory that each thread keeps for its next call."""

    def __init__(self) -> None:
        self.memory = torch.empty(0, dtype=torch.uint8)

    def address(self, size: int) -> int:
        """Where ``size`` bytes lie, aligned to 64."""
        if len(self.memory) < size + 64:
            self.memory = torch.empty(size + 64, dtype=torch.uint8)
        start = self.memory.data_ptr()
        return start + -start % 64


_scratch = _Kept()


def _library() -> ctypes.CDLL:
    found = library()
    if found is None:
        raise InputError(
            "this installation has no compiled engine (no C++ compiler was found): use engine='dense'"
        )
    return found


def _log_error(maximum: Float[Tensor, "b hw"], terms: int, direct: bool) -> Float[Tensor, " b"]:
    """The estimated rounding error of each sample's log2-weights, at its worst pixel.

    Each of the terms of a box errs by up to 3u of itself, with random signs; adding them in float32 errs by
    about 2u of the sum.
    """
    box = -maximum.amin(1) / math.log(2)
    return (3 / math.sqrt(terms) + (2 if direct else 0)) * _FLOAT32 * box
