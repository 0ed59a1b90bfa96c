"""The fast CPU engine: box sums of shifted squared differences, compiled (box.cpp).

For every shift between pixel and patch the squared differences are computed once, and each window is a box sum of
them, at a cost per pair of pixel and patch that hardly grows with the window. Nothing is approximated: patches are
left out only where their weights together stay below 1e-7 of the pixel's.
"""

import ctypes
import itertools
import math
import threading
from collections import OrderedDict
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchmosaic.dictionary import Dictionary
from patchmosaic.engines.base import Engine
from patchmosaic.engines.dense import DenseEngine
from patchmosaic.engines.native import library, pool
from patchmosaic.errors import InputError
from patchmosaic.posterior import SoftmaxMean, finalize, merge
from patchmosaic.symmetry import Rules

_LEFT_OUT = 1e-7  # bound on the share of a pixel's weight that is skipped
_MAX_ERROR = 1.5e-4  # in the log2 of a weight, before a patch is measured again in float64
_FLOAT32 = 2.0**-24
_ITEMS_AT_ONCE = 64


class BoxEngine(Engine):
    """Local machines on a CPU in float32; everything else goes to the dense engine.

    Distances are float32. Where their rounding could move the log2 of a weight by more than 1.5e-4 (very low noise,
    far from all data), the patches that matter are measured again in float64. See docs/engines.md.
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
        if window is None or self._why_dense(window, x.dtype):
            return self._dense.posterior_mean(x, alpha_bars, window, label)
        mean = finalize(self.sums(x, alpha_bars, [window], label))
        return mean[:, 0].transpose(1, 2).reshape(x.shape).float()

    def explain(self, window: int | None, dtype: torch.dtype) -> str:
        """See :meth:`Engine.explain`."""
        if reason := self._why_dense(window, dtype):
            return f"{self._dense.explain(window, dtype)}, because {reason}"
        capability = torch.backends.cpu.get_cpu_capability()
        return f"box: compiled box sums, {capability}, {torch.get_num_threads()} threads: local, float32, on a CPU"

    def _why_dense(self, window: int | None, dtype: torch.dtype) -> str:
        if window is None:
            return "one weight for a whole image is no box sum"
        if dtype != torch.float32:
            return "box sums are made for float32"
        return "" if self.dictionary.device.type == "cpu" else "box sums run on a CPU"

    def sums(
        self, x: Float[Tensor, "b c h w"], alpha_bars: list[float], windows: list[int], label: int | None
    ) -> SoftmaxMean:
        """The sums over all keys for several windows from one pass, of shape (batch, windows, height * width).

        Args:
            x: noisy images, float32.
            alpha_bars: one noise level per image.
            windows: odd sizes, ascending.
            label: the class whose training images to use; None for all.

        Raises:
            InputError: windows that are not odd and ascending.
        """
        if any(window % 2 == 0 for window in windows) or windows != sorted(windows):
            raise InputError(f"windows must be odd and ascending, got {windows}")
        batch, channels, height, width = x.shape
        native = _library()
        layout = self._layouts.of(label)
        radii = np.array([self._radius(window, height, width) for window in windows], np.int32)
        symmetry, first, shifts = self._row_shifts(int(radii[0]), height)
        items = layout.blocks * shifts if symmetry else -(-layout.blocks // native.box_side())
        workers = max(1, min(torch.get_num_threads(), items))
        reference = np.full((workers, batch, len(windows), height * width), 1e29, np.float32)
        total = np.zeros(reference.shape)
        weighted = np.zeros((*reference.shape, channels))
        alpha_bar = np.array(alpha_bars)
        precision, signal = 0.5 / math.log(2) / (1 - alpha_bar), np.sqrt(alpha_bar)
        pixels = np.ascontiguousarray(x.numpy().transpose(0, 2, 3, 1))
        moved = (pixels - signal.reshape(-1, 1, 1, 1) * layout.offset).astype(np.float32)
        trust = _trusted(precision).astype(np.float32)
        skip = math.log2(_LEFT_OUT / (layout.images * height * width)) - 1
        scratch_size = native.box_scratch(height, width, channels, len(windows), int(radii[-1]))
        stopped = threading.Event()

        def work(worker: int) -> None:
            scratch = _scratch.address(scratch_size)
            first_item, end = (items * (worker + i) // workers for i in (0, 1))
            for item in range(first_item, end, max(shifts, _ITEMS_AT_ONCE)):
                if stopped.is_set():  # the interpreter gets a chance to stop
                    return
                native.box_sums(
                    symmetry,
                    self.rules.padding == "circular",
                    *(height, width, channels, len(windows)),
                    radii.ctypes.data,
                    layout.codes.data_ptr(),
                    None if layout.levels is None else layout.levels.data_ptr(),
                    layout.slope,
                    layout.images,
                    batch,
                    *(numbers.ctypes.data for numbers in (pixels, moved, signal, precision, trust)),
                    skip,
                    *(first, shifts),
                    *(item, min(end, item + max(shifts, _ITEMS_AT_ONCE))),
                    scratch,
                    *(sums[worker].ctypes.data for sums in (reference, total, weighted)),
                )

        try:
            others = [pool(torch.get_num_threads()).submit(work, worker) for worker in range(1, workers)]
            work(0)
            for other in others:
                other.result()
        finally:
            stopped.set()
        maximum = -math.log(2) * reference.astype(np.float64)
        weighted = layout.offset * total[..., None] + layout.slope * weighted
        parts = zip(*map(torch.from_numpy, (maximum, total, weighted)), strict=True)
        return reduce(merge, itertools.starmap(SoftmaxMean, parts))

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
    """Training images in the kernel's order (blocks, height, width, channels, lanes).

    A byte k stands for levels[k], evenly spaced: offset + slope * k but for rounding. Without levels, codes are floats.
    """

    codes: Tensor
    levels: Tensor | None
    offset: float
    slope: float
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
        native = _library()
        lanes, side = native.box_lanes(), native.box_side()
        encoding = _encoding(self.dictionary.levels)
        images = len(members) * len(self.dictionary.group)
        blocks = -(-images // lanes)
        channels, height, width = self.dictionary.shape
        dtype = torch.float32 if encoding.levels is None else torch.uint8
        codes = torch.zeros(-(-blocks // side) * side, height, width, channels, lanes, dtype=dtype)
        filled = 0
        for part in members.split(lanes):
            for stored in self.dictionary.stored(part):
                coded = stored if encoding.codes is None else encoding.codes[stored.int()]
                for image in coded.to(dtype).permute(2, 3, 1, 0).split(1, dim=-1):
                    block, lane = divmod(filled, lanes)
                    codes[block, ..., lane : lane + 1] = image
                    filled += 1
        return _Layout(codes, encoding.levels, encoding.offset, encoding.slope, images, blocks)


class _Encoding(NamedTuple):
    """How the kernel stores what the dictionary stores.

    Attributes:
        codes: by stored index; None where the stored numbers are kept.
        levels: the value of each of 256 codes, offset + slope * code but for rounding; None where codes are values.
        offset: see ``levels``.
        slope: see ``levels``.
    """

    codes: Tensor | None
    levels: Tensor | None
    offset: float
    slope: float


def _encoding(levels: Float[Tensor, " n"] | None) -> _Encoding:
    """Bytes where the dictionary's levels lie on a line of at most 256 steps, to float32 rounding; else floats."""
    if levels is None:
        return _Encoding(None, None, 0.0, 1.0)
    exact = levels.double()
    offset, span = float(exact[0]), float(exact[-1] - exact[0])
    steps = round(span / float(exact.diff().min())) if len(levels) > 1 else 1
    slope = span / steps or 1.0
    codes = ((exact - offset) / slope).round()
    if steps > 255 or (offset + slope * codes - exact).abs().max() > 2.0**-24:
        return _Encoding(levels.float(), None, 0.0, 1.0)
    table = (offset + slope * torch.arange(256, dtype=torch.float64)).float()
    table[codes.long()] = levels.float()
    return _Encoding(codes.to(torch.uint8), table, offset, slope)


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


def _trusted(precision: Float[np.ndarray, " b"]) -> Float[np.ndarray, " b"]:
    """The largest box, in bits (times the precision), that float32 measures well enough.

    Terms and sums err by about 2.5 u of a box of b bits; the rounding of pixels by u moves it by about
    2 u sqrt(precision b).
    """
    limit = _MAX_ERROR / _FLOAT32
    return ((np.sqrt(precision + 2.5 * limit) - np.sqrt(precision)) / 2.5) ** 2
