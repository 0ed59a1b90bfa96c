"""The training window closest to each window of a picture, exactly (compiled part: ``screen_closest``).

Images are bytes. Grey levels g are worked on as g / 128 - 1, which float32 holds exactly, as it does the sums of
their squared differences: equal distances compare equal, and the first of the closest windows is found.
"""

import math
from ctypes import byref
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from patchmosaic.dictionary import Dictionary
from patchmosaic.engines import native
from patchmosaic.engines.native import compiled, in_parallel
from patchmosaic.engines.tree import Layout, Patches, Tree
from patchmosaic.errors import InputError
from patchmosaic.symmetry import Rules

UNIT = 128  # grey levels in 1
_AT_ONCE = 1 << 24  # numbers in a table of distances


class Closest(NamedTuple):
    """Where the closest training windows are; -1 where none is within the limit.

    Attributes:
        square: squared distances in grey levels, summed over the window; the limit where there is none.
        image: which training image.
        position: flat index of the window's first pixel in it.
    """

    square: Float[Tensor, " q"]
    image: Int[Tensor, " q"]
    position: Int[Tensor, " q"]


class Windows:
    """All windows that lie inside some training images.

    Args:
        images: uint8 (N, C, H, W).
        window: side of a window, odd.

    Raises:
        InputError: if there are more pixels than can be numbered.
    """

    def __init__(self, images: UInt8[Tensor, "n c h w"], window: int):
        count, channels, height, width = images.shape
        if count * height * width >= 1 << 31:
            raise InputError("the training images have more than 2^31 pixels: use fewer, with a limit")
        self.images, self.window, self.radius = images, window, window // 2
        rows = torch.arange(self.radius, height - self.radius)
        columns = torch.arange(self.radius, width - self.radius)
        self.positions = (rows[:, None] * width + columns).flatten()
        self.numbers = channels * window**2
        self._tree = self._grown() if native.library() is not None else None

    def _grown(self) -> Tree:
        dictionary = Dictionary(self.images)
        dictionary.levels = torch.arange(256) / UNIT - 1
        layout = Layout(dictionary, torch.arange(len(self.images)), Rules(True, "zeros"), self.radius)
        return Tree(Patches(layout, self.positions, self.positions))

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.images.nbytes if self._tree is None else self._tree.nbytes

    def cut(self, pictures: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b p d"]:
        """The windows of pictures, in grey levels / 128 - 1, each pixel's channels side by side."""
        patches = pictures.unfold(2, self.window, 1).unfold(3, self.window, 1)
        return patches.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2) / UNIT - 1

    def closest(
        self, queries: Float[Tensor, "q d"], limits: Float[Tensor, " q"], hidden: Int[Tensor, " q"]
    ) -> Closest:
        """Search.

        Args:
            queries: windows, from :meth:`cut`.
            limits: the largest squared distance of each, in grey levels, that counts.
            hidden: index of a training image that does not count, -1 for none.
        """
        limits = limits.float() / UNIT**2
        search = self._listed if self._tree is None else self._walked
        square, pixel = search(queries.contiguous(), limits, hidden)
        height, width = self.images.shape[2:]
        first = pixel % (height * width) - self.radius * (width + 1)
        found = pixel >= 0
        image = torch.where(found, pixel // (height * width), -1)
        return Closest(square * UNIT**2, image, first.where(found, -1))

    def _walked(self, queries: Tensor, limits: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Through the tree, a share of it in each thread."""
        tree, workers = self._tree, torch.get_num_threads()
        assert tree is not None
        span = math.prod(self.images.shape[2:])
        rotated = (queries.double() @ tree.rotation.double()).float()
        precision, reference = torch.ones_like(limits), torch.zeros_like(limits)
        parts = (queries, rotated, precision, precision * (1 - tree.stretch), reference)
        struct = native.Queries(*(part.data_ptr() for part in parts), len(queries))
        start = (hidden * span).int()
        square = limits.repeat(workers, 1)
        pixel = torch.full(square.shape, -1, dtype=torch.int32)
        in_parallel(
            lambda worker: compiled().screen_closest(
                *(byref(part) for part in (tree.patches.struct, tree.struct, struct)),
                *(start.data_ptr(), span, worker, workers),
                *(square[worker].data_ptr(), pixel[worker].data_ptr()),
            ),
            workers,
        )
        best = square.amin(0)
        nowhere = 1 << 31
        first = pixel.long().where((pixel >= 0) & (square == best), nowhere).amin(0)
        return best, first.where(first < nowhere, -1)

    def _listed(self, queries: Tensor, limits: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """One after another, where there is no compiled library."""
        best, pixel = limits.clone(), torch.full((len(queries),), -1)
        keys = len(self.positions)
        size = self.images.shape[2] * self.images.shape[3]
        step = max(1, _AT_ONCE // (keys * max(len(queries), self.numbers)))
        for part in torch.arange(len(self.images)).split(step):
            windows = self.cut(self.images[part]).flatten(0, 1)
            table = windows.square().sum(1) - 2 * queries @ windows.T + queries.square().sum(1, keepdim=True)
            own = hidden[:, None] == part.repeat_interleave(keys)
            table[own] = torch.inf
            square, where = table.min(1).values, table.argmin(1)
            nearer = (square < best) | ((square == best) & (pixel < 0))
            best[nearer] = square[nearer]
            pixel[nearer] = (part[where // keys] * size + self.positions[where % keys])[nearer]
        return best, pixel
