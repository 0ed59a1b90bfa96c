"""Training patches sorted by nearness: what the screened engine searches (compiled part: screen.cpp)."""

import math
from collections.abc import Iterator
from ctypes import byref

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from patchmosaic.dictionary import Dictionary
from patchmosaic.engines import native
from patchmosaic.engines.native import aligned, compiled, in_parallel
from patchmosaic.symmetry import Rules

FLOAT32 = 2.0**-24  # relative error of one operation
REACH = 64.0  # the largest coordinate of a query that the boxes allow for
_BUCKET = 1 << 15  # patches in a bucket, on average: what a thread sorts at once
_PIECE = 1 << 16  # and at most
_SAMPLE = 1 << 16  # patches from which axes and buckets are found
_IMAGES_AT_ONCE = 1024


class Layout:
    """The orbit of some training images as rows of pixels, wrapped around where windows are.

    Args:
        dictionary: the training images.
        members: which of them.
        rules: which padding.
        radius: how far a window reaches.
    """

    def __init__(self, dictionary: Dictionary, members: Int[Tensor, " m"], rules: Rules, radius: int):
        self.channels, self.height, self.width = dictionary.shape
        self.margin = radius if rules.padding == "circular" else 0
        self.radius = radius
        self.levels = None if dictionary.levels is None else dictionary.levels.float()
        dtype = torch.float32 if self.levels is None else torch.uint8
        self.images = len(members) * len(dictionary.group)
        self.codes = empty((self.images, *self._size, self.channels), dtype)
        filled = 0
        for part in members.split(_IMAGES_AT_ONCE):
            for stored in dictionary.stored(part):
                self.codes[filled : filled + len(stored)] = self.wrapped(stored)
                filled += len(stored)
        values = self.codes if self.levels is None else self.levels[self.codes.flatten().bincount().nonzero()]
        self.low, self.high = (float(bound) for bound in values.aminmax())

    @property
    def _size(self) -> tuple[int, int]:
        return self.height + 2 * self.margin, self.width + 2 * self.margin

    def wrapped(self, images: Shaped[Tensor, "n c h w"]) -> Shaped[Tensor, "n h2 w2 c"]:
        """Images as rows of pixels, with what a window sees beyond them if it is wrapped."""
        rows, columns = (
            torch.arange(-self.margin, size + self.margin) % size for size in (self.height, self.width)
        )
        return images[:, :, rows][:, :, :, columns].permute(0, 2, 3, 1)

    def pixels(self, images: int, positions: Int[Tensor, " k"]) -> Int[Tensor, " n"]:
        """Where the pixels at these positions of the first images lie."""
        height, width = self._size
        rows, columns = positions // self.width + self.margin, positions % self.width + self.margin
        first = torch.arange(images, dtype=torch.int32) * (height * width)
        return (first[:, None] + (rows * width + columns).int()).flatten()

    def offsets(self, position: int) -> tuple[Int[Tensor, " d"], Int[Tensor, " c"]]:
        """Where the numbers of the window lie, from the pixel's first; which of them are the pixel's.

        Of a window that reaches over the border of an image padded with zeros only what lies inside: the rest
        is the same for every patch that may stand in.
        """

        def seen(i: int, size: int) -> Tensor:
            if self.margin:
                return torch.arange(-self.radius, self.radius + 1)
            return torch.arange(-min(self.radius, i), min(self.radius, size - 1 - i) + 1)

        rows, columns = seen(position // self.width, self.height), seen(position % self.width, self.width)
        pixels = (rows[:, None] * self._size[1] + columns).flatten()
        offsets = (pixels[:, None] * self.channels + torch.arange(self.channels)).int()
        return offsets.flatten(), torch.arange(self.channels).int() + int(
            (pixels == 0).nonzero()
        ) * self.channels


class Patches:
    """One class of patches: those that see the same part of the border.

    Args:
        layout: the training images.
        queries: positions of an image that are asked for.
        keys: positions that may stand in for them.
    """

    def __init__(self, layout: Layout, queries: Int[Tensor, " q"], keys: Int[Tensor, " k"]):
        self.layout, self.queries, self.keys = layout, queries, keys
        self.offsets, self.centre = layout.offsets(int(queries[0]))
        self.numbers = len(self.offsets)
        self.count = layout.images * len(keys)
        levels = None if layout.levels is None else torch.nn.functional.pad(layout.levels, (0, 256))
        self._levels = levels
        self.struct = native.Patches(
            layout.codes.data_ptr(),
            None if levels is None else levels.data_ptr(),
            self.offsets.data_ptr(),
            self.centre.data_ptr(),
            layout.channels,
            self.numbers,
        )

    def pixels(self) -> Int[Tensor, " n"]:
        """Where they lie."""
        return self.layout.pixels(self.layout.images, self.keys)

    def windows(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b q d"]:
        """The same windows of other images."""
        numbers = self.layout.wrapped(x).flatten()
        pixels = self.layout.pixels(len(x), self.queries).long() * self.layout.channels
        return numbers[pixels[:, None] + self.offsets].view(len(x), len(self.queries), -1)


class Tree:
    """The patches of a class in leaves of 64 and groups of a few leaves, each with a box around its patches.

    Coordinates are rotated to the principal axes, which preserves distances. A pixel takes 4 bytes, a box 8 bytes
    for each number of a patch.
    """

    def __init__(self, patches: Patches):
        found = compiled()
        self.patches = patches
        pixels = patches.pixels()
        sample = self._numbers(pixels[:: max(1, len(pixels) // _SAMPLE)].contiguous())
        axes = torch.linalg.eigh(torch.cov(sample.T.double(), correction=0).view(2 * (patches.numbers,)))[1]
        self.rotation = axes.flip(1).float().contiguous()
        largest = max(abs(patches.layout.low), abs(patches.layout.high)) * patches.numbers**0.5
        self.wider = 1.01 * FLOAT32 * ((patches.numbers + 2) * largest + REACH)
        self.stretch = _stretch(self.rotation)
        pieces = self._arrange(pixels, sample @ self.rotation)
        del pixels
        sizes = [-(-len(piece) // found.screen_group()) for piece in pieces]
        self.groups, lanes = sum(sizes), found.screen_lanes()
        self.members = empty((self.groups, found.screen_group()), torch.int32)
        self.sizes = torch.empty(self.groups, dtype=torch.int32)
        self.leaf_boxes = empty((self.groups, patches.numbers, 2, lanes), torch.float32)
        self.group_boxes = torch.full((-(-self.groups // lanes), patches.numbers, 2, lanes), torch.inf)
        self.group_boxes[:, :, 1] = -torch.inf
        self.struct = native.Tree(
            *(part.data_ptr() for part in (self.members, self.sizes, self.leaf_boxes, self.group_boxes)),
            self.groups,
        )
        first = [sum(sizes[:i]) for i in range(len(sizes))]
        in_parallel(
            lambda i: found.screen_build(
                byref(patches.struct),
                pieces[i].data_ptr(),
                len(pieces[i]),
                self.rotation.data_ptr(),
                self.wider,
                first[i],
                byref(self.struct),
            ),
            len(pieces),
        )

    @property
    def nbytes(self) -> int:
        """Bytes held, with the training images."""
        held = (self.members, self.sizes, self.leaf_boxes, self.group_boxes, self.patches.layout.codes)
        return sum(part.nbytes for part in held)

    def _numbers(self, pixels: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        """The patches themselves."""
        identity = torch.eye(self.patches.numbers)
        out = torch.empty(self.patches.numbers, len(pixels))
        compiled().screen_rotate(
            byref(self.patches.struct), pixels.data_ptr(), len(pixels), identity.data_ptr(), out.data_ptr()
        )
        return out.T

    def _arrange(self, pixels: Int[Tensor, " n"], sample: Float[Tensor, "m d"]) -> list[Int[Tensor, " p"]]:
        """The pixels in pieces of patches near each other."""
        found = compiled()
        depth = min(15, max(0, math.ceil(math.log2(len(pixels) / _BUCKET))))
        axes, cuts = _halves(sample, depth)
        buckets = torch.empty(len(pixels), dtype=torch.int16)
        parts = list(zip(pixels.split(_PIECE), buckets.split(_PIECE), strict=True))
        in_parallel(
            lambda i: found.screen_route(
                byref(self.patches.struct),
                parts[i][0].data_ptr(),
                len(parts[i][0]),
                self.rotation.data_ptr(),
                axes.data_ptr(),
                cuts.data_ptr(),
                depth,
                parts[i][1].data_ptr(),
            ),
            len(parts),
        )
        counts = sum(part.long().bincount(minlength=1 << depth) for part in buckets.split(1 << 20))
        starts = counts.cumsum(0) - counts
        out = torch.empty_like(pixels)
        found.screen_arrange(
            pixels.data_ptr(), buckets.data_ptr(), len(pixels), starts.data_ptr(), out.data_ptr()
        )
        return [
            piece for bucket in out.split(counts.tolist()) for piece in bucket.split(_PIECE) if len(piece)
        ]


def _halves(sample: Float[Tensor, "m d"], depth: int) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """A complete binary tree that halves the sample along its widest axis: axes and cuts, from node 1 on."""
    sample = sample[: len(sample) >> depth << depth]
    axes, cuts = [torch.zeros(1, dtype=torch.long)], [torch.zeros(1)]
    for level in range(depth):
        parts = sample.view(1 << level, -1, sample.shape[1])
        axis = parts.var(1).argmax(1)
        along = parts.gather(2, axis.view(-1, 1, 1).expand(-1, parts.shape[1], 1)).squeeze(2)
        along, order = along.sort(1)
        axes.append(axis)
        cuts.append(along[:, parts.shape[1] // 2 - 1])
        sample = parts.gather(1, order.unsqueeze(2).expand_as(parts)).flatten(0, 1)
    return torch.cat(axes).int(), torch.cat(cuts)


def _stretch(rotation: Float[Tensor, "d d"]) -> float:
    """By how much, relatively, a measured squared distance between box and query may exceed the true one."""
    exact = rotation.double()
    skew = float(torch.linalg.matrix_norm(exact @ exact.T - torch.eye(len(exact)), 2))
    return skew + (2 * len(exact) + 16) * FLOAT32


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory for the compiled code, in huge pages: it is read at random."""
    return torch.from_numpy(aligned(math.prod(shape) * dtype.itemsize)).view(dtype).view(shape)


def classes(blocks: tuple) -> Iterator[tuple[Int[Tensor, " q"], Int[Tensor, " k"]]]:
    """The queries and keys of each class of positions."""
    for block in blocks:
        yield from zip(block.queries, block.keys, strict=True)
