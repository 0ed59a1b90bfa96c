"""The fast CPU engine: box sums of shifted squared differences, compiled (box.cpp).

For every shift between pixel and patch the squared differences are computed once, and each window is a box sum of
them, at a cost per pair of pixel and patch that hardly grows with the window. Nothing is approximated: patches are
left out only where their weights together stay below 1e-7 of the pixel's.
"""

import ctypes
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
from patchmosaic.engines.native import Trail, library, pool
from patchmosaic.engines.trace import ZERO_NOISE, Traced
from patchmosaic.errors import InputError
from patchmosaic.posterior import SoftmaxMean, finalize, merge
from patchmosaic.symmetry import Rules

_LEFT_OUT = 1e-7  # bound on the share of a pixel's weight that is skipped
_MAX_ERROR = 1.5e-4  # in the log2 of a weight, before a patch is measured again in float64
_FLOAT32 = 2.0**-24
_MARGIN = 4e-7  # as in box.cpp
_UNKNOWN = 1e29  # a box larger than any, there too
_NONE = 2**31 - 1
_PATCH = np.dtype([("distance", "f8"), ("weight", "f8"), ("image", "i4"), ("position", "i4"), ("hash", "u8")])
_ITEMS_AT_ONCE = 64
_FEW_PAIRS = 1 << 21  # of a sample: what one thread does in a few milliseconds


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
        mean = finalize(self._work(x, alpha_bars, window, label).sums())
        return mean.transpose(1, 2).reshape(x.shape).float()

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

    def trace(
        self,
        x: Float[Tensor, "b c h w"],
        alpha_bars: list[float],
        window: int | None,
        label: int | None,
        k: int,
    ) -> Traced:
        """See :meth:`Engine.trace`."""
        if window is None or self._why_dense(window, x.dtype):
            return super().trace(x, alpha_bars, window, label, k)
        images = len(self.dictionary.members(label)) * len(self.dictionary.group)
        kept = torch.get_num_threads() * (x[0, 0].numel() * k * _PATCH.itemsize + 8 * images)
        at_once = max(1, self.memory_budget // kept)
        parts = [
            self._work(x[i : i + at_once], alpha_bars[i : i + at_once], window, label, ZERO_NOISE).trace(k)
            for i in range(0, len(x), at_once)
        ]
        return Traced(*map(torch.cat, zip(*parts, strict=True)))

    def _work(
        self, x: Tensor, alpha_bars: list[float], window: int, label: int | None, least: float = 0.0
    ) -> "_Work":
        """What the kernel is asked; the noise 1 - alpha_bar is at least ``least``."""
        height, width = x.shape[2:]
        radius = self._radius(window, height, width)
        return _Work(
            x.numpy(),
            np.array(alpha_bars),
            np.maximum(1 - np.array(alpha_bars), least),
            radius,
            self.rules.padding == "circular",
            *self._row_shifts(radius, height),
            self._layouts.of(label),
        )

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


class _Work:
    """Noisy images against a layout, by all threads."""

    def __init__(
        self,
        x: np.ndarray,
        alpha_bar: np.ndarray,
        noise: np.ndarray,
        radius: int,
        wraps: bool,
        symmetry: int,
        first: int,
        shifts: int,
        layout: "_Layout",
    ):
        self.batch, self.channels, self.height, self.width = x.shape
        self.pixels, self.noise, self.radius, self.layout = self.height * self.width, noise, radius, layout
        self.precision, self.signal = 0.5 / math.log(2) / noise, np.sqrt(alpha_bar)
        self.noisy = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
        moved = self.noisy - self.signal.reshape(-1, 1, 1, 1) * layout.offset
        self.moved = moved.astype(np.float32)
        self.trust = _trusted(self.precision).astype(np.float32)
        self.skip = math.log2(_LEFT_OUT / (layout.images * self.pixels)) - 1
        self.wraps, self.symmetry, self.first, self.shifts = wraps, symmetry, first, shifts
        self.items = layout.blocks * shifts if symmetry else -(-layout.blocks // _library().box_side())
        threads = torch.get_num_threads()
        pairs = layout.images * self.pixels * shifts * (self.width if symmetry else 1)
        self.parts = 1 if pairs < _FEW_PAIRS else max(1, min(threads, self.items))
        self.workers = self.parts if self.parts > 1 else max(1, min(threads, self.batch))

    def sums(self) -> SoftmaxMean:
        """The sums over all keys, of shape (batch, height * width)."""
        reference, total, weighted = self._parts()
        maximum = -math.log(2) * reference
        weighted = self.layout.offset * total[..., None] + self.layout.slope * weighted
        parts = (
            SoftmaxMean(*map(torch.from_numpy, part)) for part in zip(maximum, total, weighted, strict=True)
        )
        return reduce(merge, parts)

    def _parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What every part of the keys comes to: references in bits, weights, and weighted codes."""
        shape = self.parts, self.batch, self.pixels
        reference, total = np.full(shape, _UNKNOWN), np.zeros(shape)
        weighted = np.zeros((*shape, self.channels))
        self._run(reference, total, weighted)
        return reference, total, weighted

    def trace(self, k: int) -> Traced:
        """See :meth:`Engine.trace`: the sums tell what all weights come to, and a second pass follows each."""
        references, totals, _ = map(torch.from_numpy, self._parts())
        least = references.amin(0)  # as the kernel left it: in other units, large ones would lose what weights differ by
        normaliser = least - (totals * torch.exp2(least - references)).sum(0).log2()
        precision, trust = (torch.from_numpy(bounds)[:, None] for bounds in (self.precision, self.trust))
        reference = torch.where(normaliser > trust, normaliser, normaliser.float().double())  # as it is used
        share = torch.exp2(normaliser - reference)
        enough = ((reference + _MARGIN * reference.abs() - self.skip) / precision).float()
        shape = self.parts, self.batch, self.pixels
        total, moment = np.zeros(shape), np.zeros(shape)
        limit = np.full(shape, _UNKNOWN, np.float32)
        kept = np.full((*shape, k), np.array((np.inf, 0, _NONE, _NONE, 0), _PATCH))
        by_image = np.zeros((*shape[:2], self.layout.images))
        spread, widen = self._errors()
        trails = [
            (Trail * self.batch)(
                *(
                    Trail(
                        k,
                        *(numbers[i].data_ptr() for numbers in (enough, share)),
                        *(numbers[part, i].ctypes.data for numbers in (limit, kept, by_image)),
                        *(spread[i], widen),
                    )
                    for i in range(self.batch)
                )
            )
            for part in range(self.parts)
        ]
        self._run(np.broadcast_to(reference.numpy(), shape), total, moment, trails)
        parts = total, moment, kept, by_image
        found = [
            self._traced(k, reference[i], self.precision[i], *(part[:, i] for part in parts))
            for i in range(self.batch)
        ]
        return Traced(*map(torch.stack, zip(*found, strict=True)))

    def _traced(
        self,
        k: int,
        reference: Tensor,
        precision: float,
        total: np.ndarray,
        moment: np.ndarray,
        kept: np.ndarray,
        by_image: np.ndarray,
    ) -> Traced:
        """What the workers found for a sample, put together."""
        shape, layout = (self.height, self.width), self.layout
        kept = kept.transpose(1, 0, 2).reshape(self.pixels, -1)
        order = np.lexsort((kept["position"], kept["image"], kept["distance"]))[:, :k]
        best = np.take_along_axis(kept, order, 1).T
        image, element = np.divmod(np.where(best["image"] == _NONE, 0, best["image"]), layout.elements)
        orbit = layout.members[image].numpy() * layout.elements + element
        sources = torch.from_numpy(orbit * self.pixels + best["position"])
        distances, counted = (torch.from_numpy(best[name].copy()) for name in ("distance", "weight"))
        weights, moments = (torch.from_numpy(sums.sum(0)) for sums in (total, moment))
        exact = torch.exp2(reference - distances * precision).sum(0) + (weights - counted.sum(0)).clamp(min=0)
        of_images = torch.zeros(layout.dictionary_size, dtype=torch.float64)
        of_images[layout.members] = torch.from_numpy(by_image.sum(0).reshape(-1, layout.elements).sum(1))
        of_images *= self.pixels / of_images.sum()  # the two passes round differently
        return Traced(
            sources.masked_fill(distances.isinf(), -1).unflatten(1, shape),
            (-math.log(2) * precision * distances).unflatten(1, shape),
            (exact.log() - math.log(2) * reference).unflatten(0, shape),
            (math.log(2) * (weights.log2() - moments / weights)).clamp(min=0).unflatten(0, shape),
            of_images,
        )

    def _errors(self) -> tuple[Float[np.ndarray, " b"], float]:
        """How far the root of a box in float32 may err, and then by which factor the box.

        Every number's difference errs by the rounding of the noisy pixel, of the scale, of their product and of the
        line through the levels: together at most u (moved + 6 signal), u = 2^-24, for training pixels in [-1, 1].
        What is squared and summed then errs by u for every operation on its way.
        """
        span = 2 * self.radius + 1
        numbers = span * span * self.channels
        of_one = np.abs(self.moved).max(axis=(1, 2, 3)) + 6 * self.signal
        return math.sqrt(numbers) * _FLOAT32 * of_one, 1 + (2 * span + self.channels + 8) * _FLOAT32

    def _run(
        self,
        reference: np.ndarray,
        total: np.ndarray,
        weighted: np.ndarray,
        trails: "list[ctypes.Array[Trail]] | None" = None,
    ) -> None:
        """Fill every part of the sums, each from a share of the images, or a single one by shares of the samples."""
        native, layout = _library(), self.layout
        size = native.box_scratch(self.height, self.width, self.channels, self.radius)
        at_once = max(self.shifts, _ITEMS_AT_ONCE)
        stopped = threading.Event()
        by_images = self.parts > 1

        def share(whole: int, worker: int) -> tuple[int, int]:
            return whole * worker // self.workers, whole * (worker + 1) // self.workers

        def work(worker: int) -> None:
            scratch = _scratch.address(size)
            part = worker if by_images else 0
            first, last = (0, self.batch) if by_images else share(self.batch, worker)
            first_item, end = share(self.items, worker) if by_images else (0, self.items)
            queries = self.noisy, self.moved, self.signal, self.precision, self.trust
            for item in range(first_item, end, at_once):
                if stopped.is_set():  # the interpreter gets a chance to stop
                    return
                native.box_sums(
                    self.symmetry,
                    self.wraps,
                    *(self.height, self.width, self.channels, self.radius),
                    layout.codes.data_ptr(),
                    None if layout.levels is None else layout.levels.data_ptr(),
                    layout.slope,
                    layout.images,
                    last - first,
                    *(numbers[first:].ctypes.data for numbers in queries),
                    self.skip,
                    *(self.first, self.shifts),
                    *(item, min(end, item + at_once)),
                    scratch,
                    *(sums[part, first:].ctypes.data for sums in (reference, total, weighted)),
                    None if trails is None else ctypes.byref(trails[part][first]),
                )

        try:
            others = [pool(torch.get_num_threads()).submit(work, worker) for worker in range(1, self.workers)]
            work(0)
            for other in others:
                other.result()
        finally:
            stopped.set()


class _Layout(NamedTuple):
    """Training images in the kernel's order (blocks, height, width, channels, lanes).

    A byte k stands for levels[k], evenly spaced: offset + slope * k but for rounding. Without levels, codes are floats.
    """

    codes: Tensor
    levels: Tensor | None
    offset: float
    slope: float
    blocks: int
    members: Tensor  # the training images, ascending
    elements: int  # of the group, image by image
    dictionary_size: int

    @property
    def images(self) -> int:
        """With their orbits."""
        return len(self.members) * self.elements


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
        elements = len(self.dictionary.group)
        blocks = -(-len(members) * elements // lanes)
        channels, height, width = self.dictionary.shape
        dtype = torch.float32 if encoding.levels is None else torch.uint8
        codes = torch.zeros(-(-blocks // side) * side, height, width, channels, lanes, dtype=dtype)
        filled = 0
        for part in members.split(lanes):
            stored = torch.stack(self.dictionary.stored(part), 1).flatten(0, 1)
            coded = stored if encoding.codes is None else encoding.codes[stored.int()]
            for image in coded.to(dtype).permute(2, 3, 1, 0).split(1, dim=-1):
                block, lane = divmod(filled, lanes)
                codes[block, ..., lane : lane + 1] = image
                filled += 1
        evenly = encoding.offset, encoding.slope
        return _Layout(codes, encoding.levels, *evenly, blocks, members, elements, len(self.dictionary))


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
