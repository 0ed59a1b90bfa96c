"""Which training positions may stand in for a pixel, and which flips and rotations act on the images.

A symmetry is an integer class per position: a training position may stand in for a query pixel when their
classes are equal. One class per pixel gives LS, a single class gives ELS, and what the window sees of the
border gives the boundary-broken ELS (Kamb & Ganguli 2025, eq. 7-10 and 41, fig. 9).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from patchmosaic.errors import InputError

# Each element is (quarter turns, horizontal flip after the turns).
POINT_GROUPS: dict[str, tuple[tuple[int, bool], ...]] = {
    "identity": ((0, False),),
    "flip": ((0, False), (0, True)),
    "rotations": tuple((turns, False) for turns in range(4)),
    "d4": tuple((turns, flip) for flip in (False, True) for turns in range(4)),
}


def transform(images: Shaped[Tensor, "... h w"], element: tuple[int, bool]) -> Shaped[Tensor, "... h2 w2"]:
    """Apply one element of a point group to the last two dimensions."""
    turns, flip = element
    turned = torch.rot90(images, turns, dims=(-2, -1))
    return turned.flip(-1) if flip else turned


@dataclass(frozen=True)
class Rules:
    """The symmetry of a machine.

    Args:
        translation: whether other positions than a pixel's own may stand in for it.
        padding: what a window sees outside the image: "zeros", or "circular" for the image wrapped around.
        keys: "all" training positions, or only those whose window lies "inside" the training image, as in
            the authors' code for the wrapped ELS.
    """

    translation: bool
    padding: str
    keys: str = "all"

    def __post_init__(self) -> None:
        if self.padding not in ("zeros", "circular"):
            raise InputError(f"padding must be 'zeros' or 'circular', not {self.padding!r}")
        if self.keys not in ("all", "inside"):
            raise InputError(f"keys must be 'all' or 'inside', not {self.keys!r}")
        if self.keys == "inside" and not self.wraps:
            raise InputError("keys='inside' needs symmetry='translation' and padding='circular'")

    @property
    def wraps(self) -> bool:
        """Whether patches may come from over the border of the training images."""
        return self.translation and self.padding == "circular"


@dataclass(frozen=True)
class Block:
    """Classes of one size, side by side: ``g`` classes with ``q`` query pixels and ``k`` key positions each.

    Positions are flat indices ``row * width + column``.
    """

    queries: Int[Tensor, "g q"]
    keys: Int[Tensor, "g k"]

    def split(self, limit: int, key_size: int) -> Iterator["Block"]:
        """Cut into blocks in which one key per class meets all queries within ``limit`` numbers.

        Args:
            limit: numbers allowed for the logits, and for the key features.
            key_size: numbers in the features of one key.
        """
        q_step = min(self.queries.shape[1], max(1, limit))
        g_step = max(1, limit // max(q_step, key_size))
        for queries, keys in zip(self.queries.split(g_step), self.keys.split(g_step), strict=True):
            for some_queries in queries.split(q_step, dim=1):
                yield Block(some_queries, keys)


@lru_cache(maxsize=64)
def position_blocks(height: int, width: int, window: int, rules: Rules) -> tuple[Block, ...]:
    """The positions of an image as blocks of equal classes, together covering every query pixel once."""
    radius = window // 2
    positions = torch.arange(height * width).view(height, width)
    if not rules.translation:
        classes = positions
    elif rules.padding == "circular":
        classes = torch.zeros_like(positions)
    else:
        classes = _seen_border(height, radius)[:, None] * (width * width) + _seen_border(width, radius)
    serves = torch.ones(height, width, dtype=torch.bool)
    if rules.keys == "inside":
        if window > min(height, width):
            raise InputError(
                f"no {window}x{window} window lies inside a {height}x{width} image: use keys='all'"
            )
        serves = torch.zeros_like(serves)
        serves[radius : height - radius, radius : width - radius] = True
    members: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
    for queries in _by_class(classes, positions):
        keys = queries[serves.flatten()[queries]]
        members.setdefault((len(queries), len(keys)), []).append((queries, keys))
    return tuple(
        Block(torch.stack([q for q, _ in pairs]), torch.stack([k for _, k in pairs]))
        for pairs in members.values()
    )


def _seen_border(size: int, radius: int) -> Int[Tensor, " size"]:
    """An integer for (min(i, r), min(size - 1 - i, r)): how far i is from both ends, as far as it can see."""
    i = torch.arange(size)
    return i.clamp(max=radius) * size + (size - 1 - i).clamp(max=radius)


def _by_class(classes: Int[Tensor, "h w"], positions: Int[Tensor, "h w"]) -> Iterator[Int[Tensor, " n"]]:
    order = classes.flatten().argsort(stable=True)
    _, counts = classes.flatten().unique(return_counts=True)
    yield from positions.flatten()[order].split(counts.tolist())
