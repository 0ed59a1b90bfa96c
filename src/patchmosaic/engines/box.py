"""The fast CPU engine: box sums of shifted squared differences, compiled (box.cpp).

For every shift between pixel and patch the squared differences are computed once, and each window is a box sum of
them, at a cost per pair of pixel and patch that hardly grows with the window. Nothing is approximated: patches are
left out only where their weights together stay below 1e-7 of the pixel's.
"""

import ctypes
import math
import threading
from collections.abc import Iterator
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchmosaic.cache import Cache
from patchmosaic.dictionary import Dictionary
from patchmosaic.engines.base import Engine
from patchmosaic.engines.dense import DenseEngine
from patchmosaic.engines.native import Job, Trail, aligned, compiled
from patchmosaic.engines.trace import ZERO_NOISE, Traced
from patchmosaic.symmetry import Rules

_LEFT_OUT = 1e-7  # bound on the share of a pixel's weight that is skipped
_MAX_ERROR = 1.5e-4  # in the log2 of a weight, before a patch is measured again in float64
_LEAST_SIGNAL = 2.0**-40  # less is none: it moves no weight, and queries are divided by it
_UNKNOWN = 1e36  # a box larger than any, as in box.cpp
_NONE = 2**31 - 1
_NOISE = np.dtype([(name, "f8") for name in ("signal", "precision", "unit", "stretch")])
_PATCH = np.dtype([("distance", "f8"), ("weight", "f8"), ("image", "i4"), ("position", "i4"), ("hash", "u8")])
_PARTS = 16  # of the dictionary at most, with sums of their own, whatever the number of threads
_FEW_PARTS = 4  # where there are few images: what one part learns of the best weights the others do not know
_IMAGES_OF_PART = 128  # at least, in more parts than these
_PAIRS_OF_PART = 1 << 18  # about, and at least: each part more takes as long as 60,000 or so
_PAIRS_OF_THREAD = 1 << 17  # at least: waking one takes as long as a few thousand
_MOST_KEPT = 1 << 27  # bytes, between calls
_LAYOUTS_KEPT = 2.5  # times the memory of the images, at most
_PAIRS_AT_ONCE = 1 << 30  # before the interpreter gets a chance to stop


class BoxEngine(Engine):
    """Local machines on a CPU in float32; everything else goes to the dense engine.

    Distances are float32. Where their rounding could move the log2 of a weight by more than 1.5e-4 (very low noise,
    far from all data), the patches that matter are measured again in float64. See docs/engines.md.
    """

    def __init__(self, dictionary: Dictionary, rules: Rules, memory_budget: int):
        super().__init__(dictionary, rules, memory_budget)
        compiled()
        self._dense = DenseEngine(dictionary, rules, memory_budget)
        self._layouts: Cache[_Layout] = Cache(_LAYOUTS_KEPT * dictionary.nbytes, attrgetter("nbytes"))

    def posterior_mean(
        self, x: Float[Tensor, "b c h w"], alpha_bars: list[float], window: int | None, label: int | None
    ) -> Float[Tensor, "b c h w"]:
        """See :meth:`Engine.posterior_mean`."""
        if window is None or self._why_dense(window, x.dtype):
            return self._dense.posterior_mean(x, alpha_bars, window, label)
        means = [work.means() for work in self._works(x, alpha_bars, [window], label)]
        return (means[0] if len(means) == 1 else torch.cat(means))[:, 0]

    def posterior_means(
        self, x: Float[Tensor, "b c h w"], alpha_bars: list[float], windows: list[int], label: int | None
    ) -> Float[Tensor, "p b c h w"]:
        """See :meth:`Engine.posterior_means`; where windows see the border, all of them in one pass."""
        radii = [self._radius(window, *x.shape[2:]) for window in windows]
        distinct = sorted(set(radii))
        if not self._sees_border or len(distinct) == 1 or self._why_dense(windows[0], x.dtype):
            return super().posterior_means(x, alpha_bars, windows, label)
        works = self._works(x, alpha_bars, [2 * radius + 1 for radius in distinct], label)
        means = torch.cat([work.means() for work in works])
        return means[:, [distinct.index(radius) for radius in radii]].movedim(1, 0)

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
        works = self._works(x, alpha_bars, [window], label, ZERO_NOISE, kept)
        return Traced(*map(torch.cat, zip(*(work.trace(k) for work in works), strict=True)))

    def _works(
        self,
        x: Tensor,
        alpha_bars: list[float],
        windows: list[int],
        label: int | None,
        least: float = 0.0,
        kept: int = 0,
    ) -> "Iterator[_Work]":
        """What the kernel is asked: as many samples at a time as the budget allows, of which each keeps ``kept`` bytes.

        Windows are distinct and ascending; the noise 1 - alpha_bar is at least ``least``. Nor are there more samples
        than can be summed before the interpreter gets a chance to stop.
        """
        native = compiled()
        channels, height, width = x.shape[1:]
        radii = [self._radius(window, height, width) for window in windows]
        symmetry, first, shifts = self._row_shifts(radii[0], height)
        kept += len(radii) * _PARTS * height * width * _bytes_of_pixel(channels)
        images = native.box_settled(symmetry) * native.box_groups(symmetry) * native.box_lanes()
        pairs = len(radii) * images * height * width * shifts * (width if symmetry else 1)
        at_once = max(1, min(self.memory_budget // kept, _PAIRS_AT_ONCE // pairs))
        for i in range(0, max(1, len(x)), at_once):
            yield _Work(
                (x[i : i + at_once] if at_once < len(x) else x).contiguous(),
                alpha_bars[i : i + at_once],
                least,
                radii,
                self.rules.padding == "circular",
                *(symmetry, first, shifts),
                self._layouts.get(label, lambda: _layout(self.dictionary, self.dictionary.members(label))),
            )

    @property
    def _sees_border(self) -> bool:
        return self.rules.translation and self.rules.padding == "zeros"

    def _radius(self, window: int, height: int, width: int) -> int:
        """Half the window; where zeros lie outside the image, no more than reaches all of it."""
        radius = window // 2
        return radius if self.rules.padding == "circular" else min(radius, max(height, width) - 1)

    def _row_shifts(self, radius: int, height: int) -> tuple[int, int, int]:
        """The kernel's name for the symmetry, the first row shift between pixel and patch, and their number."""
        if not self.rules.translation:
            return 0, 0, 1
        if self._sees_border:
            reach = max(0, height - 2 * radius - 1)
            return 1, -reach, 2 * reach + 1
        if self.rules.keys == "all":
            return 2, 0, height
        return 3, 1 - height, 2 * height - 1


class _Work:
    """Noisy images against a layout, by all threads."""

    def __init__(
        self,
        x: Tensor,
        alpha_bars: list[float],
        least: float,
        radii: list[int],
        wraps: bool,
        symmetry: int,
        first: int,
        shifts: int,
        layout: "_Layout",
    ):
        native = compiled()
        self.x, self.shifts, self.layout = x, shifts, layout
        self.radii = np.array(radii, np.int32)
        self.batch, self.channels, self.height, self.width = x.shape
        self.pixels = self.height * self.width
        self.noise = np.array([_noise(alpha_bar, least, layout.slope) for alpha_bar in alpha_bars], _NOISE)
        items = -(-layout.blocks // native.box_groups(symmetry)) * shifts
        pairs = len(radii) * layout.images * self.pixels * shifts * (self.width if symmetry else 1)
        self.threads = min(torch.get_num_threads(), max(1, self.batch * pairs // _PAIRS_OF_THREAD))
        self.at_once = max(1, _PAIRS_AT_ONCE * items // (pairs * max(1, self.batch)))
        parts = min(_PARTS, max(_FEW_PARTS, layout.images // _IMAGES_OF_PART))
        parts = max(1, min(parts, items, -(-pairs // _PAIRS_OF_PART)))
        self.job = Job(
            *(symmetry, wraps, self.height, self.width, self.channels, len(radii)),
            *(first, shifts, self.batch, parts, self.threads),
            math.log2(_LEFT_OUT / (layout.images * self.pixels)) - 2,
            *(_MAX_ERROR, layout.offset, layout.slope, layout.lowest, layout.highest, layout.images, items),
            *(
                self.radii.ctypes.data,
                layout.codes.data_ptr(),
                None if layout.levels is None else layout.levels.data_ptr(),
            ),
            *(x.data_ptr(), self.noise.ctypes.data),
        )
        self.memory = _memory.take(native.box_place(self.job, None))
        native.box_place(self.job, self.memory.address)

    def means(self) -> Float[Tensor, "b p c h w"]:
        """The posterior means through all windows."""
        self._run(self.job)
        means = self.x.new_empty(self.batch, self.job.windows, *self.x.shape[1:])
        compiled().box_merge(self.job, means.data_ptr())
        return means

    def trace(self, k: int) -> Traced:
        """See :meth:`Engine.trace`: the sums tell what all weights come to, and a second pass follows each."""
        self._run(self.job)
        compiled().box_merge(self.job, None)
        least, totals, expected = (
            torch.from_numpy(self.memory.array(address, (self.batch, self.pixels), np.float64))
            for address in (self.job.reference, self.job.total, self.job.expected)
        )
        reference = least - totals.log2()
        share, enough = torch.empty_like(reference), torch.empty_like(reference, dtype=torch.float32)
        parts = min(torch.get_num_threads(), self.job.items)
        shape = parts, self.batch, self.pixels
        total, moment = np.zeros(shape), np.zeros(shape)
        limit = np.full(shape, _UNKNOWN, np.float32)
        kept = np.full((*shape, k), np.array((np.inf, 0, _NONE, _NONE, 0), _PATCH))
        by_image = np.zeros((*shape[:2], self.layout.images))
        trails = (Trail * (parts * self.batch))(
            *(
                Trail(
                    k,
                    *(numbers[i].data_ptr() for numbers in (enough, share)),
                    *(numbers[part, i].ctypes.data for numbers in (limit, kept, by_image)),
                )
                for part in range(parts)
                for i in range(self.batch)
            )
        )
        job = Job.from_buffer_copy(self.job)
        job.parts, job.reference, job.trails = parts, reference.data_ptr(), ctypes.addressof(trails)
        job.total, job.weighted = total.ctypes.data, moment.ctypes.data
        compiled().box_aim(job, share.data_ptr(), enough.data_ptr())
        self._run(job)
        found = [
            self._traced(
                k,
                *(reference[i], expected[i]),
                self.noise["precision"][i].item(),
                *(part[:, i] for part in (total, moment, kept, by_image)),
            )
            for i in range(self.batch)
        ]
        return Traced(*map(torch.stack, zip(*found, strict=True)))

    def _traced(
        self,
        k: int,
        reference: Tensor,
        expected: Tensor,
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
        exact = torch.exp2(reference - (distances * precision - expected)).sum(0)
        exact += (weights - counted.sum(0)).clamp(min=0)  # of the others
        of_images = torch.zeros(layout.dictionary_size, dtype=torch.float64)
        of_images[layout.members] = torch.from_numpy(by_image.sum(0).reshape(-1, layout.elements).sum(1))
        of_images *= self.pixels / of_images.sum()  # the two passes round differently
        return Traced(
            sources.masked_fill(distances.isinf(), -1).unflatten(1, shape),
            (-math.log(2) * precision * distances).unflatten(1, shape),
            (exact.log() - math.log(2) * (reference + expected)).unflatten(0, shape),
            (math.log(2) * (weights.log2() - moments / weights)).clamp(min=0).unflatten(0, shape),
            of_images,
        )

    def _run(self, job: Job) -> None:
        """Fill the sums of every part."""
        at_once = max(self.at_once // job.parts, 1)
        for item in range(0, -(-job.items // job.parts), at_once):
            compiled().box_sums(job, item, item + at_once)


class _Layout(NamedTuple):
    """Training images in the kernel's order (blocks, height, width, channels, lanes).

    A byte k stands for levels[k], evenly spaced: offset + slope * k but for rounding. Without levels, codes are floats.
    """

    codes: Tensor
    levels: Tensor | None
    offset: float
    slope: float
    lowest: float  # code
    highest: float
    blocks: int
    members: Tensor  # the training images, ascending
    elements: int  # of the group, image by image
    dictionary_size: int

    @property
    def images(self) -> int:
        """With their orbits."""
        return len(self.members) * self.elements

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.codes.nbytes


def _layout(dictionary: Dictionary, members: Int[Tensor, " m"]) -> _Layout:
    """Some training images, with their orbits."""
    native = compiled()
    lanes, side = native.box_lanes(), native.box_side()
    encoding = _encoding(dictionary.levels)
    elements = len(dictionary.group)
    blocks = -(-len(members) * elements // lanes)
    channels, height, width = dictionary.shape
    dtype = torch.float32 if encoding.levels is None else torch.uint8
    codes = torch.zeros(-(-blocks // side) * side, height, width, channels, lanes, dtype=dtype)
    filled = 0
    for part in members.split(lanes):
        stored = torch.stack(dictionary.stored(part), 1).flatten(0, 1)
        coded = stored if encoding.codes is None else encoding.codes[stored.int()]
        for image in coded.to(dtype).permute(2, 3, 1, 0).split(1, dim=-1):
            block, lane = divmod(filled, lanes)
            codes[block, ..., lane : lane + 1] = image
            filled += 1
    lowest, highest = map(float, codes.aminmax())
    line = encoding.offset, encoding.slope, lowest, highest
    return _Layout(codes, encoding.levels, *line, blocks, members, elements, len(dictionary))


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


class _Block(NamedTuple):
    """Memory, aligned to 64."""

    memory: np.ndarray
    address: int

    def array(self, address: int, shape: tuple[int, ...], kind: Any) -> np.ndarray:
        """What lies at an address."""
        size = math.prod(shape) * np.dtype(kind).itemsize
        return self.memory[address - self.address :][:size].view(kind).reshape(shape)


class _Memory(threading.local):
    """Memory that each thread keeps for its next call, unless it is large: new pages take the system long to give."""

    def __init__(self) -> None:
        self.kept = self.new(0)

    def take(self, size: int) -> _Block:
        """So many bytes at least, until the next call."""
        if size <= len(self.kept.memory):
            return self.kept
        block = self.new(size)
        if size <= _MOST_KEPT:
            self.kept = block
        return block

    @staticmethod
    def new(size: int) -> _Block:
        """Memory of its own."""
        memory = aligned(size)
        return _Block(memory, memory.ctypes.data)


_memory = _Memory()


def _noise(alpha_bar: float, least: float, slope: float) -> tuple[float, ...]:
    """What a noise level means, as box.cpp has it; its noise is at least ``least``."""
    signal, precision = math.sqrt(alpha_bar), 0.5 / math.log(2) / max(1 - alpha_bar, least)
    scale = max(signal, _LEAST_SIGNAL) * slope
    unit = math.ldexp(0.5, math.frexp(scale)[1])  # the power of two below
    return signal, precision, unit, unit / scale


def _bytes_of_pixel(channels: int) -> int:
    """What a part keeps of a pixel."""
    return 8 * (2 + channels) + 4 * (1 + 3 * compiled().box_queue())
