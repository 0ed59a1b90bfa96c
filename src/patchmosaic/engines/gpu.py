"""The GPU engine: exact integer products on tensor cores, written in Triton.

In units of a training image's byte k, the logit -|phi - sqrt(ab) psi|^2 / (2 sigma^2) is sum k (q - a k) and a term
that cancels, where q is linear in the pixel and a a constant. With q in fixed point and cut into bytes, q·k is a few
products of bytes, summed by the tensor cores in 32-bit integers without rounding. What is left of rounding is known
beforehand, and decides how many bytes q takes. See docs/engines.md.
"""

import math
import os
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int, Int8
from torch import Tensor

from patchmosaic.dictionary import Dictionary
from patchmosaic.engines.base import Engine
from patchmosaic.engines.dense import DenseEngine
from patchmosaic.engines.windows import Frame, local_frame
from patchmosaic.posterior import SoftmaxMean, finalize, merge
from patchmosaic.symmetry import Block, Rules, position_blocks

_MAX_ERROR = 1e-4  # in the log2 of a weight, before a sample goes to the dense engine
_SPREAD = 1 / math.sqrt(3)  # root mean square of a uniform distribution, relative to its reach
_ROUNDING = 1 / math.sqrt(12)  # root mean square of what rounding to an integer takes away
_BYTES = ((1, 2), (1, 3), (1, 4), (4, 3), (4, 4))  # of a training value and of a query, cheapest first
_LARGEST_WINDOW = 1 << 14  # numbers in a window; beyond, sums of products could leave 32 bits
_PATCH_BYTES = 1 << 26  # of patches at a time: more gains nothing, less pays for launching
_PROGRAMS = 1 << 10  # per sample: enough for any device, and the same on all
_QUERIES, _KEYS, _FEW = 128, 128, 16  # a tile of logits; for classes of few pixels it has fewer rows,
_SMALL_WINDOW = 64  # and half as many for windows of few numbers, where reading patches again costs little

# A key that is this far below the best so far, in units of at least 2^-16, weighs less than 2^-60 of it.
_FAR = tl.constexpr(1 << 22)
_LOWEST = -(1 << 31) + (1 << 24)  # the least logit, with room for _FAR below
_HIGHEST = (1 << 31) - (1 << 25)
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@triton.jit
def _cut(
    planes, positions, patches, norms, values,
    images, places, filled, top, left,
    WRAPS: tl.constexpr, BYTES: tl.constexpr, CHANNELS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
    DOWN: tl.constexpr, ACROSS: tl.constexpr, NUMBERS: tl.constexpr, STEP: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Copy the windows around ``positions`` (class, places) of every image side by side, and sum their squares.

    planes: (images, BYTES, CHANNELS, HEIGHT, WIDTH) int8.
    patches: (class, images * places, BYTES, NUMBERS) int8, zero beyond the image and beyond the window's numbers.
    norms: (class, filled), int32 or float64; what is beyond images * places repeats the last.
    values: (CHANNELS + 1, class, filled) float32: the pixels at the positions, and 1; beyond, zeros.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    count = images * places
    exists = row < count
    last = tl.minimum(row, count - 1)
    image = last // places
    position = tl.load(positions + tl.program_id(1) * places + last % places)
    patch = patches + (tl.program_id(1).to(tl.int64) * count + last) * (BYTES * NUMBERS)
    norm = tl.zeros([ROWS], norms.dtype.element_ty)
    plane = planes + image * (BYTES * CHANNELS * HEIGHT * WIDTH) + position
    y, x = position // WIDTH, position % WIDTH
    for start in range(0, NUMBERS, STEP):
        number = start + tl.arange(0, STEP)
        channel = number // (DOWN * ACROSS)
        down = number // ACROSS % DOWN - top
        right = number % ACROSS - left
        if WRAPS:
            down, right = (down % HEIGHT + HEIGHT) % HEIGHT, (right % WIDTH + WIDTH) % WIDTH
        shift = (channel * HEIGHT + down) * WIDTH + right
        at = plane[:, None] + shift[None, :]
        below, beside = y[:, None] + down[None, :], x[:, None] + right[None, :]
        if WRAPS:
            at -= tl.where(below < HEIGHT, 0, HEIGHT * WIDTH) + tl.where(beside < WIDTH, 0, WIDTH)
            seen = (channel < CHANNELS)[None, :]
        else:  # negative if any of them is
            outside = below | (HEIGHT - 1 - below) | beside | (WIDTH - 1 - beside)
            seen = (outside | (CHANNELS - 1 - channel)[None, :]) >= 0
        value = tl.zeros([ROWS, STEP], norms.dtype.element_ty)
        for byte in tl.static_range(BYTES):
            code = tl.load(at + byte * (CHANNELS * HEIGHT * WIDTH), mask=seen, other=0)
            tl.store(patch[:, None] + (byte * NUMBERS + number)[None, :], code, mask=exists[:, None])
            value = value * 256 + code.to(norms.dtype.element_ty)
        norm += tl.sum(value * value, 1)
    out = tl.program_id(1).to(tl.int64) * filled + row
    tl.store(norms + out, norm, mask=row < filled)
    one = exists.to(tl.float32)
    for channel in tl.static_range(CHANNELS + 1):
        pixel = one if channel == CHANNELS else one * 0
        for byte in tl.static_range(BYTES if channel < CHANNELS else 0):
            code = tl.load(plane + (byte * CHANNELS + channel) * HEIGHT * WIDTH)
            pixel += code.to(tl.float32) * (0.00390625**byte)
        pixel = tl.where(exists, pixel, 0.0)
        tl.store(values + channel * tl.num_programs(1).to(tl.int64) * filled + out, pixel, mask=row < filled)


@triton.jit
def _multiply(
    logits, query, key, ORDER: tl.constexpr, KEY_BYTES: tl.constexpr, NUMBERS: tl.constexpr, STEP: tl.constexpr
):  # fmt: skip
    """Add the products of all bytes of query and key whose places add up to ORDER."""
    for byte in tl.static_range(KEY_BYTES):
        if byte <= ORDER:
            for start in range(0, NUMBERS, STEP):
                number = start + tl.arange(0, STEP)
                q = tl.load(query[:, None] + ((ORDER - byte) * NUMBERS + number)[None, :])
                k = tl.load(key[None, :] + (byte * NUMBERS + number)[:, None])
                logits = tl.dot(q, k, logits)
    return logits


@triton.jit
def _weigh(
    queries, keys, biases, values, units, tops, sums,
    places, count, filled, tiles,
    CHANNELS: tl.constexpr, SUMS: tl.constexpr, QUERY_BYTES: tl.constexpr, KEY_BYTES: tl.constexpr,
    NUMBERS: tl.constexpr, STEP: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Add the keys of some images to the sums of one tile of queries.

    queries: (class, sample * places, QUERY_BYTES, NUMBERS) int8.
    keys: (class, count, KEY_BYTES, NUMBERS) int8; values: (CHANNELS + 1, class, filled) float32.
    biases: (sample, class, filled) int32: what is added to the logit for all but the last byte of the query.
    units: (sample,) float32: log2 of a weight per unit of the finest sum.
    tops, sums: (sample, split, class, places) int32, and the same by (CHANNELS + 1) float64: the largest logit so
        far, and the weighted values and the total relative to it.
    """
    group, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    split, sample = tl.program_id(1), tl.program_id(2)
    classes = tl.num_programs(0) // tiles
    unit = tl.load(units + sample)

    place = tile * QUERIES + tl.arange(0, QUERIES)
    query_row = (group * tl.num_programs(2) + sample) * places + tl.minimum(place, places - 1)
    query = queries + query_row.to(tl.int64) * (QUERY_BYTES * NUMBERS)
    state_row = ((sample * tl.num_programs(1) + split) * classes + group) * places + place
    column = tl.arange(0, SUMS)
    sums_at = sums + state_row.to(tl.int64)[:, None] * (CHANNELS + 1) + column[None, :]
    stored = (place < places)[:, None] & (column <= CHANNELS)[None, :]
    top = tl.load(tops + state_row, mask=place < places, other=0)
    state = tl.load(sums_at, mask=stored, other=0.0)

    keys += group.to(tl.int64) * count * (KEY_BYTES * NUMBERS)
    biases += (sample * classes + group).to(tl.int64) * filled
    values += group.to(tl.int64) * filled
    for start in range(split * KEYS, count, tl.num_programs(1) * KEYS):
        row = start + tl.arange(0, KEYS)
        key = keys + tl.minimum(row, count - 1).to(tl.int64) * (KEY_BYTES * NUMBERS)
        bias = tl.load(biases + row)

        logits = tl.zeros([QUERIES, KEYS], tl.int32)
        for order in tl.static_range(QUERY_BYTES - 1):
            logits = logits << 8
            if order == QUERY_BYTES - 2:
                logits += bias[None, :]
            logits = _multiply(logits, query, key, order, KEY_BYTES, NUMBERS, STEP)
        best = tl.maximum(top, tl.max(logits, 1))
        logits = tl.maximum(logits, (best - _FAR)[:, None]) - best[:, None]
        logits = _multiply(logits << 8, query, key, QUERY_BYTES - 1, KEY_BYTES, NUMBERS, STEP)
        weights = tl.exp2(logits.to(tl.float32) * unit)
        kept = tl.exp2((tl.maximum(top, best - _FAR) - best).to(tl.float32) * (256 * unit))
        state *= kept.to(tl.float64)[:, None]
        top = best
        for channel in tl.static_range(CHANNELS + 1):
            value = tl.load(values + channel * classes.to(tl.int64) * filled + row)
            added = tl.sum(weights * value[None, :], 1).to(tl.float64)
            state += tl.where(column[None, :] == channel, added[:, None], 0.0)

    tl.store(tops + state_row, top, mask=place < places)
    tl.store(sums_at, state, mask=stored)


class _Grid(NamedTuple):
    """Training values written as ``origin + step * k``, with k a number of one byte or several, -128 <= k < 128.

    ``reach`` is the largest absolute k, ``error`` the root mean square of what is lost, ``table`` holds the bytes
    (levels, bytes) of images stored as codes.
    """

    origin: float
    step: float
    bytes: int
    reach: float
    error: float
    table: Tensor | None

    def planes(self, stored: Tensor) -> Int8[Tensor, "n bytes c h w"]:
        """The bytes of images as the dictionary stores them."""
        if self.table is not None:
            return self.table[stored.int()].movedim(-1, 1).contiguous()
        fine = 256.0 ** (self.bytes - 1) / self.step
        return _bytes(((stored.double() - self.origin) * fine).round().long(), self.bytes)


class _Scale(NamedTuple):
    """How one sample's logits are counted in integers.

    A query is ``factor * (phi - sqrt(ab) origin)``, rounded; ``bytes`` of it and of the training values are used.
    ``slope`` and ``shift`` are those of the norms, ``unit`` is log2 of a weight per unit of the finest sum.
    """

    grid: _Grid
    bytes: int
    signal: float
    factor: float
    slope: float
    shift: float
    unit: float


class TritonEngine(Engine):
    """Local machines on a CUDA device in float32; everything else goes to the dense engine.

    Products are exact. The error of the log-weights follows from the noise level, the window and the largest pixel
    alone, and where it could exceed 1e-4 the sample goes to the dense engine in float64. See docs/engines.md.
    """

    def __init__(self, dictionary: Dictionary, rules: Rules, memory_budget: int):
        super().__init__(dictionary, rules, memory_budget)
        self._dense = DenseEngine(dictionary, rules, memory_budget)
        self._grids = {count: _grid(dictionary.levels, count, dictionary.device) for count in (1, 4)}

    def posterior_mean(
        self, x: Float[Tensor, "b c h w"], alpha_bars: list[float], window: int | None, label: int | None
    ) -> Float[Tensor, "b c h w"]:
        """See :meth:`Engine.posterior_mean`."""
        if window is None or x.dtype != torch.float32 or not (x.is_cuda or _INTERPRETED):
            return self._dense.posterior_mean(x, alpha_bars, window, label)
        height, width = x.shape[2:]
        frame = local_frame(height, width, window, self.rules.padding)
        blocks = position_blocks(height, width, window, self.rules)
        numbers = x.shape[1] * frame.height * frame.width
        scales = [
            self._scale(largest, alpha_bar, numbers)
            for largest, alpha_bar in zip(x.abs().amax((1, 2, 3)).tolist(), alpha_bars, strict=True)
        ]
        jobs: dict[tuple[int, int] | None, list[int]] = {}
        for i, scale in enumerate(scales):
            jobs.setdefault(scale and (scale.grid.bytes, scale.bytes), []).append(i)
        mean = torch.empty_like(x)
        for rows in jobs.values():
            chosen = [scale for scale in (scales[i] for i in rows) if scale]
            if chosen:
                with torch.cuda.device_of(x):
                    mean[rows] = self._means(x[rows], chosen, frame, blocks, label).float()
            else:
                levels = [alpha_bars[i] for i in rows]
                mean[rows] = self._dense.posterior_mean(x[rows].double(), levels, window, label).float()
        return mean

    def explain(self, window: int | None, dtype: torch.dtype) -> str:
        """See :meth:`Engine.explain`."""
        if window is None or dtype != torch.float32:
            return f"{self._dense.explain(window, dtype)}, because byte products are made for local, float32"
        return f"triton: byte products on {self.dictionary.device}: local, float32, on a GPU"

    def _scale(self, largest: float, alpha_bar: float, numbers: int) -> _Scale | None:
        """The cheapest bytes that keep a sample's log-weights within ``_MAX_ERROR``, if any do.

        Args:
            largest: the absolute value of the sample's largest number.
            alpha_bar: its noise level.
            numbers: in a window.
        """
        if numbers > _LARGEST_WINDOW:
            return None
        precision, signal = 0.5 / math.log(2) / (1 - alpha_bar), math.sqrt(alpha_bar)
        for grid_bytes, query_bytes in _BYTES:
            grid = self._grids[grid_bytes]
            if grid is None:
                continue
            factor = 2 * precision * signal * grid.step
            square = precision * (signal * grid.step) ** 2  # the logit is sum k (q - square k)
            q = factor * (largest + signal * abs(grid.origin))
            most = min(grid.reach, q / (2 * square or 1))  # where k (q - square k) is largest
            high, low = most * (q - square * most), -grid.reach * (q + square * grid.reach)
            unit = max(
                2.0**-24,
                q / (127 / 255 * (256**query_bytes - 1) - 1),
                numbers * (high - low) / 2 / (256 * (_HIGHEST - numbers * query_bytes * (1 << 14))),
            )
            lost = numbers * (1 + (query_bytes if grid_bytes > 1 else 0))
            error = math.hypot(
                unit * grid.reach * _SPREAD * _ROUNDING * math.sqrt(lost),
                unit * 256 * _ROUNDING,
                factor / grid.step * (largest + signal) * grid.error * math.sqrt(numbers),
            )
            if error <= _MAX_ERROR:
                return _Scale(
                    grid,
                    query_bytes,
                    signal * grid.origin,
                    factor / unit,
                    square / (256.0 ** (2 * grid_bytes - 2) * 256 * unit),
                    -numbers * (high + low) / 2 / (256 * unit),
                    unit,
                )
        return None

    def _means(
        self,
        x: Float[Tensor, "b c h w"],
        scales: list[_Scale],
        frame: Frame,
        blocks: tuple[Block, ...],
        label: int | None,
    ) -> Float[Tensor, "b c h w"]:
        """The posterior means of samples with equal numbers of bytes."""
        channels, height, width = x.shape[1:]
        grid, query_bytes = scales[0].grid, scales[0].bytes
        step, padded = _steps(channels * frame.height * frame.width)
        room = min(_PATCH_BYTES, self.memory_budget // 4)
        per_sample = height * width * query_bytes * padded + _PROGRAMS * _QUERIES * (12 + 8 * channels)
        per_sample += room // (grid.bytes * padded) * 12  # biases, and the float64 that they are made from
        at_once = max(1, self.memory_budget // 4 // per_sample)
        if len(x) > at_once:
            parts = [slice(i, i + at_once) for i in range(0, len(x), at_once)]
            return torch.cat([self._means(x[part], scales[part], frame, blocks, label) for part in parts])
        per_image = max(block.keys.numel() for block in blocks) * grid.bytes * padded
        sums = [_Sums(block, x, scales, frame, step, padded) for block in blocks]
        members = self.dictionary.members(label).to(x.device)
        for indices in members.split(max(1, room // per_image // len(self.dictionary.group))):
            planes = grid.planes(torch.cat(self.dictionary.stored(indices)))
            for part in sums:
                part.add(planes)
        mean = x.new_empty(len(x), channels, height * width, dtype=torch.float64)
        for part in sums:
            mean[:, :, part.block.queries] = part.means()
        return (grid.origin + grid.step * mean).view(x.shape)


class _Sums:
    """The sums of one block of classes for a batch."""

    def __init__(self, block: Block, x: Tensor, scales: list[_Scale], frame: Frame, step: int, padded: int):
        self.block, self.frame, self.step, self.padded = block, frame, step, padded
        self.grid, self.query_bytes = scales[0].grid, scales[0].bytes
        classes, places = block.queries.shape
        most = _QUERIES if padded > _SMALL_WINDOW else _QUERIES // 2
        self.rows = max(_FEW, min(most, 1 << (places - 1).bit_length()))
        self.tiles = -(-places // self.rows)
        self.splits = 1 << max(0, (_PROGRAMS // (classes * self.tiles)).bit_length() - 1)
        self.keys = block.keys.to(x.device, torch.int32)
        signal, factor = (
            torch.tensor(numbers, dtype=torch.float64, device=x.device).view(-1, 1, 1, 1)
            for numbers in zip(*((scale.signal, scale.factor) for scale in scales), strict=True)
        )
        planes = _bytes(((x.double() - signal) * factor).round().long(), self.query_bytes)
        self.queries, _, _ = self._cut(planes, block.queries.to(x.device, torch.int32), torch.int32)
        self.slope, self.shift, self.unit = (
            torch.tensor(numbers, dtype=torch.float64, device=x.device).view(-1, 1, 1)
            for numbers in zip(*((scale.slope, scale.shift, scale.unit) for scale in scales), strict=True)
        )
        shape = (len(x), self.splits, classes, places)
        self.tops = torch.full(shape, _LOWEST, dtype=torch.int32, device=x.device)
        self.sums = torch.zeros(*shape, x.shape[1] + 1, dtype=torch.float64, device=x.device)

    def add(self, planes: Int8[Tensor, "n bytes c h w"]) -> None:
        """Sum over these images' keys."""
        norm_type = torch.int32 if self.grid.bytes == 1 else torch.float64
        keys, norms, values = self._cut(planes, self.keys, norm_type)
        biases = (self.shift - self.slope * norms).to(torch.int32)
        samples, splits, classes, places = self.tops.shape
        _weigh[classes * self.tiles, splits, samples](
            *(self.queries, keys, biases, values, self.unit.float(), self.tops, self.sums),
            *(places, keys.shape[1], norms.shape[1], self.tiles),
            CHANNELS=len(values) - 1,
            SUMS=1 << (len(values) - 1).bit_length(),
            QUERY_BYTES=self.query_bytes,
            KEY_BYTES=self.grid.bytes,
            NUMBERS=self.padded,
            STEP=self.step,
            QUERIES=self.rows,
            KEYS=_KEYS,
            num_warps=8 if self.rows == 128 else 4,
        )

    def means(self) -> Float[Tensor, "b c g q"]:
        """The posterior means in units of the grid."""
        nats = self.unit.unsqueeze(-1) * (256 * math.log(2))
        state = SoftmaxMean(self.tops * nats, self.sums[..., -1], self.sums[..., :-1])
        state = SoftmaxMean(*(part.transpose(0, 1) for part in state))
        while (half := len(state.total) // 2) > 0:
            state = merge(SoftmaxMean(*(s[:half] for s in state)), SoftmaxMean(*(s[half:] for s in state)))
        return finalize(state)[0].permute(0, 3, 1, 2)

    def _cut(
        self, planes: Tensor, positions: Tensor, norm_type: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The windows at ``positions`` of all images, the sums of their squares, and their central pixels."""
        images, count, channels, height, width = planes.shape
        classes, places = positions.shape
        patches = planes.new_empty(classes, images * places, count, self.padded)
        filled = -(-images * places // _KEYS) * _KEYS
        norms = torch.empty(classes, filled, dtype=norm_type, device=planes.device)
        values = torch.empty(channels + 1, *norms.shape, device=planes.device)
        rows = 8192 // self.step
        _cut[-(-filled // rows), classes](
            *(planes, positions, patches, norms, values),
            *(images, places, filled, self.frame.top, self.frame.left),
            WRAPS=self.frame.padding == "circular",
            BYTES=count,
            CHANNELS=channels,
            HEIGHT=height,
            WIDTH=width,
            DOWN=self.frame.height,
            ACROSS=self.frame.width,
            NUMBERS=self.padded,
            STEP=self.step,
            ROWS=rows,
        )
        return patches, norms, values


def _grid(levels: Tensor | None, count: int, device: torch.device) -> _Grid | None:
    """Training values in ``count`` bytes; None where one byte does not do, because levels are not evenly spaced."""
    if levels is None:  # any floats in [-1, 1], give or take rounding
        step = 1.001 / 127
        error = step * 256.0 ** (1 - count) * _ROUNDING
        return None if count == 1 else _Grid(0.0, step, count, 128, error, None)
    values = levels.double().cpu()
    low, high = float(values[0]), float(values[-1])
    intervals = 254.0
    if count == 1:
        intervals = round((high - low) / float(values.diff().min())) if len(values) > 1 else 1
        if intervals > 255:
            return None
    step = (high - low) / intervals or 1.0
    origin = low + (intervals + 1) // 2 * step
    fine = 256.0 ** (count - 1)
    numbers = ((values - origin) / step * fine).round()
    error = float((origin + numbers / fine * step - values).square().mean().sqrt())
    if count == 1 and error > 1e-4 * step:
        return None
    reach = float(numbers.abs().max()) / fine
    return _Grid(origin, step, count, reach, error, _bytes(numbers.long(), count).to(device))


def _bytes(numbers: Int[Tensor, "n ..."], count: int) -> Int8[Tensor, "n bytes ..."]:
    """Whole numbers in ``count`` signed bytes, the one that weighs most first."""
    found = []
    for _ in range(count):
        low = (numbers + 128) % 256 - 128
        found.append(low.to(torch.int8))
        numbers = (numbers - low) >> 8
    return torch.stack(found[::-1], dim=1)


def _steps(numbers: int) -> tuple[int, int]:
    """How many numbers of a window are multiplied at a time, and the window's numbers filled up to a multiple.

    A step takes about as long as 16 more numbers would.
    """
    found = {step: -(-numbers // step) * step for step in (128, 64, 32)}
    return min(found.items(), key=lambda item: item[1] * (1 + 16 / item[0]))
