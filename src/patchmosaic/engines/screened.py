"""Certified screening: patches proven too far to matter are left out.

For weights w of the patches summed, W together, and a bound S on the weight of all others, the posterior mean D
and the mean D~ of the patches summed differ by ``|D - D~| <= S / (W + S) * max |v - D~|``, over the values v
that pixels of training images take. Patches are left out only as long as that, and the rounding of what is
summed, stays within the tolerance at every pixel; where that would leave too little out, the exact engine does
the image. The proof is in docs/engines.md.
"""

import math
from ctypes import byref
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchmosaic.cache import Cache
from patchmosaic.engines import native
from patchmosaic.engines.base import Certified, Engine
from patchmosaic.engines.native import compiled, in_parallel
from patchmosaic.engines.trace import Traced
from patchmosaic.engines.tree import FLOAT32, REACH, Layout, Patches, Tree, classes
from patchmosaic.symmetry import position_blocks

_WORTH = 0.15  # share of pairs above which the exact engine is as fast
_LARGEST = 150  # numbers in a patch: boxes around larger ones are all near each other
_KEPT = 1 << 29  # bytes of trees kept when another is wanted
_TRIED = 1 << 20  # patches on which it is tried first whether screening pays
_ASKED = 16  # pixels of an image that are asked for that
_AT_ONCE = 8192  # queries worked on together
_BINS, _STEPS = 128, 2  # of the tally: half a bit each
_LOST = 2.0**119  # sums that reach this began from a patch much too far away: weights are counted up to 2^120


class ScreenedEngine(Engine):
    """Screens local machines with shifts on a CPU in float32; everything else goes to the exact engine.

    Args:
        exact: the engine that answers where screening does not pay.
        tol: the largest error allowed in a pixel, in units of pixels: they lie in [-1, 1].
    """

    def __init__(self, exact: Engine, tol: float):
        super().__init__(exact.dictionary, exact.rules, exact.memory_budget)
        self.exact, self.tol = exact, tol
        self._searches: Cache[_Search | None] = Cache(_KEPT, _bytes_of)

    def posterior_mean(
        self, x: Float[Tensor, "b c h w"], alpha_bars: list[float], window: int | None, label: int | None
    ) -> Float[Tensor, "b c h w"]:
        """See :meth:`Engine.posterior_mean`; the error is at most ``tol``."""
        return self.certified(x, alpha_bars, window, label).mean

    def certified(
        self, x: Float[Tensor, "b c h w"], alpha_bars: list[float], window: int | None, label: int | None
    ) -> Certified:
        """See :meth:`Engine.certified`."""
        search = None
        if window is not None and self._covers(window, x.dtype):
            search = self._searches.get((window, label), lambda: _Search.made(self, window, label))
        if search is None:
            return self.exact.certified(x, alpha_bars, window, label)
        found = [
            answer
            for rows in torch.arange(len(x)).split(max(1, _AT_ONCE // len(search.main.queries)))
            for answer in search(x[rows], [alpha_bars[i] for i in rows], self.tol)
        ]
        left = [i for i, answer in enumerate(found) if answer is None]
        if left:
            exact = self.exact.certified(x[left], [alpha_bars[i] for i in left], window, label)
            for i, *answer in zip(left, *exact, strict=True):
                found[i] = Certified(*answer)
        return Certified(*(torch.stack(parts) for parts in zip(*found, strict=True)))

    def trace(
        self,
        x: Float[Tensor, "b c h w"],
        alpha_bars: list[float],
        window: int | None,
        label: int | None,
        k: int,
    ) -> Traced:
        """See :meth:`Engine.trace`; nothing is left out."""
        return self.exact.trace(x, alpha_bars, window, label, k)

    def explain(self, window: int | None, dtype: torch.dtype) -> str:
        """See :meth:`Engine.explain`."""
        exact = self.exact.explain(window, dtype)
        if not self._covers(window, dtype):
            return f"{exact} (tol={self.tol:g} is of use to local machines with shifts on a CPU in float32)"
        return f"screened to tol={self.tol:g} where that pays, else {exact}"

    def _covers(self, window: int | None, dtype: torch.dtype) -> bool:
        """Whether there is a search for such images; whether it pays is found out later."""
        local = window is not None and self.rules.translation
        on_cpu = self.dictionary.device.type == "cpu" and native.library() is not None
        return local and on_cpu and dtype == torch.float32


def _bytes_of(search: "_Search | None") -> int:
    return 0 if search is None else search.nbytes


class _Plan(NamedTuple):
    """What to sum for each query, what has been summed (one group), and a bound on the weight of all else."""

    summed: Int[Tensor, " q"]  # a group
    total: Float[Tensor, " q"]
    weighted: Float[Tensor, "q c"]
    least: Float[Tensor, " q"]
    cut: Int[Tensor, " q"]
    rest: Float[Tensor, " q"]
    visits: Int[Tensor, " q"]  # patches that will have been summed
    rounding: Float[Tensor, " q"]


class _Queries:
    """Windows of noisy images, divided by sqrt(alpha_bar), among the patches of one class."""

    def __init__(self, patches: Patches, numbers: Float[Tensor, "q d"], precision: Float[Tensor, " q"]):
        self.patches, self.exact, self.sharp = patches, numbers, precision
        self.numbers, self.precision = numbers.float().contiguous(), precision.float()
        self.reference = torch.full((len(numbers),), torch.inf)
        self.total = torch.zeros(len(numbers), dtype=torch.float64)
        self.weighted = torch.zeros(len(numbers), patches.layout.channels, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.numbers)

    def at(self, rows: Tensor) -> "_Queries":
        """Some of them, from the beginning."""
        return _Queries(self.patches, self.exact[rows], self.sharp[rows])

    def struct(self, tree: Tree | None = None) -> native.Queries:
        """What the compiled code sees of them, in a tree's coordinates."""
        self.rotated, self.safe = self.numbers, self.precision
        if tree is not None:
            self.rotated = (self.exact @ tree.rotation.double()).float()
            self.safe = (self.sharp * (1 - tree.stretch)).float()
        parts = (self.numbers, self.rotated, self.precision, self.safe, self.reference)
        return native.Queries(*(part.data_ptr() for part in parts), len(self))

    def sum(self, struct: native.Queries, pixels: Int[Tensor, " n"], start: int, stop: int) -> None:
        """Add the patches at ``pixels`` to the sums of some queries."""
        compiled().screen_sum(
            byref(self.patches.struct),
            pixels.data_ptr(),
            len(pixels),
            byref(struct),
            *(start, stop),
            *(self.total.data_ptr(), self.weighted.data_ptr()),
        )

    def rounding(self) -> Float[Tensor, " q"]:
        """A bound on what float32 does to the mean, once the nearest group was summed; see docs/engines.md."""
        layout, numbers = self.patches.layout, self.patches.numbers
        bits = self.reference.double() + math.log2(self.patches.count)
        size = self.exact.norm(dim=1) + max(abs(layout.low), abs(layout.high)) * numbers**0.5
        terms = (13 + -(-numbers // 8)) * bits + 2 * size * (self.sharp * bits).sqrt()
        return (layout.high - layout.low) * (1.05 * math.log(2) * FLOAT32 * terms + 2e-6) + 1e-7


class _Search:
    """Screening for one window and the training images of one label."""

    def __init__(self, layout: Layout, main: Patches, others: list[Patches], trial: Tree | None):
        self.layout, self.main, self.others, self.trial = layout, main, others, trial
        self._tree: Tree | None = None

    @classmethod
    def made(cls, engine: ScreenedEngine, window: int, label: int | None) -> "_Search | None":
        """None where it cannot pay: patches too large, or too many pixels at the border."""
        channels, height, width = engine.dictionary.shape
        radius = window // 2
        if engine.rules.padding == "zeros":
            radius = min(radius, max(height, width) - 1)
        by_class = sorted(
            classes(position_blocks(height, width, window, engine.rules)),
            key=lambda pair: len(pair[0]) * len(pair[1]),
        )
        pairs = [len(queries) * len(keys) for queries, keys in by_class]
        members = engine.dictionary.members(label)
        pixels = len(members) * len(engine.dictionary.group) * (height + 2 * radius) * (width + 2 * radius)
        if channels * window**2 > _LARGEST or sum(pairs[:-1]) > _WORTH * sum(pairs) or pixels >= 1 << 31:
            return None
        layout = Layout(engine.dictionary, members, engine.rules, radius)
        *others, main = (Patches(layout, *pair) for pair in by_class)
        trial = None
        if main.count > 2 * _TRIED:
            few = members[:: -(-main.count // _TRIED)]
            small = Layout(engine.dictionary, few, engine.rules, radius)
            trial = Tree(Patches(small, *by_class[-1]))
        return cls(layout, main, others, trial)

    @property
    def tree(self) -> Tree:
        """Made when first needed."""
        if self._tree is None:
            self._tree = Tree(self.main)
        return self._tree

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(part.nbytes for part in (self._tree, self.trial) if part is not None)

    def __call__(
        self, x: Float[Tensor, "b c h w"], alpha_bars: list[float], tol: float
    ) -> list[Certified | None]:
        """An answer for each image; None where the exact engine should give it."""
        levels = torch.tensor(alpha_bars, dtype=torch.float64)
        scaled = x.double() / levels.sqrt().view(-1, 1, 1, 1)
        precision = 0.5 / math.log(2) * levels / (1 - levels)
        rows = (levels > 0).nonzero().flatten()
        if len(rows) and self.trial is not None:
            rows = self._promising(self.trial, scaled, precision, rows, tol)
        if len(rows):
            rows = self._promising(self.tree, scaled, precision, rows, tol)
        answers: list[Certified | None] = [None] * len(x)
        if len(rows):
            for row, answer in zip(
                rows.tolist(), self._answers(scaled[rows], precision[rows], tol), strict=True
            ):
                answers[row] = answer
        return answers

    def _queries(self, patches: Patches, scaled: Tensor, precision: Tensor) -> _Queries:
        windows = patches.windows(scaled)
        return _Queries(patches, windows.flatten(0, 1), precision.repeat_interleave(windows.shape[1]))

    def _promising(self, tree: Tree, scaled: Tensor, precision: Tensor, rows: Tensor, tol: float) -> Tensor:
        """Images for which, going by a few pixels, screening pays."""
        asked = torch.arange(0, len(self.main.queries), max(1, len(self.main.queries) // _ASKED))
        some = Patches(tree.patches.layout, tree.patches.queries[asked], tree.patches.keys)
        plan = _plan(tree, self._queries(some, scaled[rows], precision[rows]), tol)
        sparse = 2 if tree is self.trial else 1  # among few patches, boxes are larger
        return rows[self._pays(plan, sparse * tree.patches.count, len(asked))]

    def _pays(self, plan: _Plan, keys: int, queries: int) -> Tensor:
        return plan.visits.view(-1, queries).double().mean(1) <= _WORTH * keys

    def _answers(self, scaled: Tensor, precision: Tensor, tol: float) -> list[Certified | None]:
        batch, queries = len(scaled), len(self.main.queries)
        height, width = scaled.shape[2:]
        asked = self._queries(self.main, scaled, precision)
        plan = _plan(self.tree, asked, tol)
        good = self._pays(plan, self.main.count, queries)
        plan = plan._replace(
            cut=plan.cut.where(good.repeat_interleave(queries), _BINS)
        )  # the exact engine's: none
        visited = _visit(self.tree, asked, plan)
        mean = torch.empty(batch, height * width, self.layout.channels, dtype=torch.float64)
        bound = torch.empty(batch, height * width, dtype=torch.float64)
        mean[:, self.main.queries], bound[:, self.main.queries], sound = (
            part.view(batch, queries, *part.shape[1:]) for part in _certify(asked, plan.rest, plan.rounding)
        )
        good &= (sound & (visited == plan.visits).view(batch, queries)).all(1)
        pairs = visited.view(batch, queries).sum(1)
        for patches in self.others:
            mean[:, patches.queries], bound[:, patches.queries] = self._whole(patches, scaled, precision)
            pairs += len(patches.queries) * patches.count
        good &= (bound <= tol).all(1)
        share = pairs.double() / sum(len(part.queries) * part.count for part in (self.main, *self.others))
        images = mean.transpose(1, 2).reshape(scaled.shape).float()
        return [
            Certified(images[i], bound[i].view(height, width), share[i]) if good[i] else None
            for i in range(batch)
        ]

    def _whole(self, patches: Patches, scaled: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
        """All patches of a class, for the few pixels that see the border."""
        asked = self._queries(patches, scaled, precision)
        struct, pixels = asked.struct(), patches.pixels()
        parts = torch.arange(len(asked)).split(-(-len(asked) // torch.get_num_threads()))
        in_parallel(lambda i: asked.sum(struct, pixels, int(parts[i][0]), int(parts[i][-1]) + 1), len(parts))
        mean, bound, sound = _certify(asked, torch.zeros_like(asked.total), asked.rounding())
        bound[~sound] = torch.inf
        shape = (len(scaled), len(patches.queries))
        return mean.view(*shape, -1), bound.view(shape)


def _plan(tree: Tree, asked: _Queries, tol: float) -> _Plan:
    """Sum the nearest group, then choose as many leaves as must be summed besides."""
    found, patches, count = compiled(), tree.patches, tree.patches.count
    struct = asked.struct(tree)
    summed = torch.zeros(len(asked), dtype=torch.int64)

    def begin(q: int) -> None:
        found.screen_nearest(
            byref(patches.struct), byref(tree.struct), byref(struct), q, q + 1, summed.data_ptr()
        )
        group = int(summed[q])
        asked.sum(struct, tree.members[group, : int(tree.sizes[group])], q, q + 1)

    in_parallel(begin, len(asked))
    rounding = asked.rounding()
    spread = patches.layout.high - patches.layout.low
    share = 0.99 * (tol - rounding) / max(spread, 1e-30)
    allowed = share.clamp(min=1e-30, max=0.5) * asked.total
    least = (allowed / (8 * count)).log2().clamp(min=-100).float()
    workers = torch.get_num_threads()
    tally = torch.zeros(workers, len(asked), _BINS, dtype=torch.int32)
    rest = torch.zeros(workers, len(asked), dtype=torch.float64)
    in_parallel(
        lambda worker: found.screen_tally(
            *(byref(part) for part in (patches.struct, tree.struct, struct)),
            *(part.data_ptr() for part in (summed, least)),
            *(_BINS, _STEPS, worker, workers),
            *(tally[worker].data_ptr(), rest[worker].data_ptr()),
        ),
        workers,
    )
    patches_in = tally.long().sum(0)
    edges = least.double().unsqueeze(1) + torch.arange(1, _BINS + 1) / _STEPS
    bounds = 1.001 * torch.cat([rest.sum(0).unsqueeze(1), patches_in * edges.exp2()], dim=1).cumsum(1)
    cut = (bounds[:, :_BINS] <= allowed.unsqueeze(1)).sum(1).clamp(min=1) - 1
    usable = (rounding <= tol / 2) & (asked.exact.norm(dim=1) < REACH)
    visits = patches_in.flip(1).cumsum(1).flip(1).gather(1, cut.unsqueeze(1)).squeeze(1) + tree.sizes[summed]
    visits = torch.where(usable, visits, 1 << 40)
    rest = bounds.gather(1, cut.unsqueeze(1)).squeeze(1)
    return _Plan(summed, asked.total, asked.weighted, least, cut.int(), rest, visits, rounding)


def _visit(tree: Tree, asked: _Queries, plan: _Plan) -> Int[Tensor, " q"]:
    """Sum the chosen leaves; how many patches have been summed for each query."""
    workers = torch.get_num_threads()
    visited = torch.zeros(workers, len(asked), dtype=torch.int64)
    total = torch.zeros(workers, *asked.total.shape, dtype=torch.float64)
    weighted = torch.zeros(workers, *asked.weighted.shape, dtype=torch.float64)
    struct = asked.struct(tree)
    in_parallel(
        lambda worker: compiled().screen_visit(
            *(byref(part) for part in (tree.patches.struct, tree.struct, struct)),
            *(part.data_ptr() for part in (plan.summed, plan.least, plan.cut)),
            *(_BINS, _STEPS, worker, workers),
            *(part[worker].data_ptr() for part in (visited, total, weighted)),
        ),
        workers,
    )
    asked.total += total.sum(0)
    asked.weighted += weighted.sum(0)
    return visited.sum(0) + tree.sizes[plan.summed]


def _certify(asked: _Queries, rest: Tensor, rounding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Means, bounds on their errors, and whether the sums held."""
    layout = asked.patches.layout
    mean = asked.weighted / asked.total.unsqueeze(1)
    spread = torch.maximum(layout.high - mean, mean - layout.low).amax(1)
    bound = rest / (asked.total + rest) * spread + rounding
    return mean, bound, (asked.total > 0) & (asked.total < _LOST)
