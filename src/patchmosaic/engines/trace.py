"""What a posterior rests on: the patches of most weight, how much each training image gives, and the entropy.

Logits are matrix products in float64. Where their rounding could decide the order, distances are measured again,
number by number in one order, so that equal patches are equally far to the last bit.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchmosaic.dictionary import Dictionary
from patchmosaic.engines.windows import features, frame_and_blocks, pad, scaled, tile_size
from patchmosaic.posterior import NEGLIGIBLE, SoftmaxMean, empty, finalize, merge
from patchmosaic.symmetry import Block, Rules

ZERO_NOISE = 2.0**-24  # the smallest 1 - alpha_bar: there only the nearest patches have weight
_MEASURED_AT_ONCE = 1 << 22  # numbers
_FEW = 4  # times the patches to name: no more are measured without a closer look
_EPS = 2.0**-53


class Traced(NamedTuple):
    """What the posteriors of a batch rest on, in float64 on the CPU.

    Sources are numbered ``(image * elements + element) * H * W + position``: the training image, the element of the
    group that acts on it, and the position (row * W + column) in the transformed image that stands in for the pixel.
    Among patches of equal weight the smallest number comes first.
    """

    sources: Int[Tensor, "b k h w"]  # the k patches of most weight, best first; -1 where there are fewer
    logits: Float[Tensor, "b k h w"]  # -|phi - sqrt(ab) psi|^2 / (2 (1 - ab)); -inf where there are fewer
    log_totals: Float[Tensor, "b h w"]  # log of the sum of exp(logit) over all patches
    entropies: Float[Tensor, "b h w"]  # of the weights, in nats
    by_image: Float[Tensor, "b n"]  # weight of each training image, summed over all pixels


def trace(
    dictionary: Dictionary,
    rules: Rules,
    memory_budget: int,
    x: Float[Tensor, "b c h w"],
    alpha_bars: list[float],
    window: int | None,
    label: int | None,
    k: int,
    pixel: tuple[int, int] | None = None,
) -> Traced:
    """Trace noisy images back to their patches, for any machine.

    Args:
        dictionary: the training images.
        rules: which training positions may stand in for a pixel.
        memory_budget: bytes of working memory.
        x: noisy images.
        alpha_bars: one noise level in [0, 1] per image; closer to 1 than 2^-24 counts as the limit of zero noise.
        window: an odd P, or None for the whole image.
        label: the class whose training images to use; None for all.
        k: how many patches to name.
        pixel: the only one to trace, as row and column: what is returned has H = W = 1. None: all.
    """
    samples = [
        _of_sample(
            dictionary, rules, memory_budget, sample[None].double(), alpha_bar, window, label, k, pixel
        )
        for sample, alpha_bar in zip(x, alpha_bars, strict=True)
    ]
    return Traced(*(torch.stack(parts).cpu() for parts in zip(*samples, strict=True)))


def _of_sample(
    dictionary: Dictionary,
    rules: Rules,
    memory_budget: int,
    x: Float[Tensor, "1 c h w"],
    alpha_bar: float,
    window: int | None,
    label: int | None,
    k: int,
    pixel: tuple[int, int] | None,
) -> Traced:
    """Of one image, without the dimension of the batch."""
    height, width = x.shape[2:]
    asked = None if pixel is None else pixel[0] * width + pixel[1]
    members = dictionary.members(label).to(x.device)
    frame, blocks = frame_and_blocks(height, width, window, rules)
    pixels = 1 if window is None else height * width
    sources = torch.full((k, pixels), -1, device=x.device)
    logits = torch.full((k, pixels), -torch.inf, dtype=torch.float64, device=x.device)
    log_totals, entropies = torch.empty_like(logits[0]), torch.empty_like(logits[0])
    by_image = torch.zeros(len(dictionary), dtype=torch.float64, device=x.device)
    elements = torch.arange(len(dictionary.group), device=x.device)[:, None]
    tile = tile_size(memory_budget)
    for block in blocks if asked is None or window is None else _only(blocks, asked):
        limit = max(1, min(tile // block.keys.shape[1], memory_budget // (16 * len(members))))
        for part in block.split(limit, x.shape[1] * frame.height * frame.width):
            found = _Part(part, features(pad(x, frame), frame, part.queries), alpha_bar, k)
            at_once = max(1, tile // found.numbers_per_image)
            for numbers, images in dictionary.chunks(members, at_once, torch.float64):
                orbit = numbers.to(x.device).view(len(elements), -1) * len(elements) + elements
                found.add(features(pad(images, frame), frame, part.keys), orbit, height * width)
            where = part.queries.flatten()
            sources[:, where], logits[:, where] = found.sources.T, found.logits.T
            log_totals[where], entropies[where] = found.log_totals, found.entropies
            by_image[members] += found.by_image
    parts: list[Tensor] = [sources, logits, log_totals, entropies]
    shown = (height, width) if asked is None else (1, 1)
    if window is None:
        every = (part.expand(*part.shape[:-1], height * width) for part in parts[1:])
        parts = [_spread(sources, height, width), *every]
        by_image *= shown[0] * shown[1]
    if asked is not None:
        parts = [part[..., asked : asked + 1] for part in parts]
    return Traced(*[*(part.unflatten(-1, shown) for part in parts), by_image])


def _only(blocks: Iterable[Block], query: int) -> Iterator[Block]:
    """A query with its class."""
    for block in blocks:
        for group, place in (block.queries == query).nonzero().tolist():
            yield Block(block.queries[group, place].view(1, 1), block.keys[group : group + 1])


def _spread(sources: Int[Tensor, "k 1"], height: int, width: int) -> Int[Tensor, "k p"]:
    """Of every pixel, where whole images are the sources: that of a translate is the pixel that it puts there."""
    rows, columns = (
        torch.arange(height, device=sources.device)[:, None],
        torch.arange(width, device=sources.device),
    )
    orbit, shift = sources[:, :, None] // (height * width), sources[:, :, None] % (height * width)
    row, column = (rows + shift // width) % height, (columns + shift % width) % width
    return ((orbit * height + row) * width + column).masked_fill(sources[:, :, None] < 0, -1).flatten(1)


class _Part:
    """The queries of a block, r in all, and what is known of them so far."""

    def __init__(self, block: Block, phi: Float[Tensor, "g q d"], alpha_bar: float, k: int):
        self.block, self.phi, self.k = block, phi, k
        variance = max(1 - alpha_bar, ZERO_NOISE)
        self.signal, self.precision = alpha_bar**0.5, 1 / variance
        self.queries = scaled(phi, alpha_bar, variance)
        self.squares = phi.square().sum(2)
        r, device = phi.shape[0] * phi.shape[1], phi.device
        self.sources = torch.full((r, k), -1, device=device)
        self.logits = torch.full((r, k), -torch.inf, dtype=torch.float64, device=device)
        self.hashes = torch.zeros_like(self.sources)
        generator = torch.Generator().manual_seed(0)
        odd = torch.randint(-(2**62), 2**62, (phi.shape[2],), generator=generator) * 2 + 1
        self.multipliers = odd.to(device)
        self.state = empty(phi.shape[:2], 1, device)
        self.log_weights: list[Tensor] = []

    @property
    def numbers_per_image(self) -> int:
        """Logits, or numbers in the keys, whichever are more."""
        return self.block.keys.numel() * max(self.phi.shape[1:])

    def add(self, psi: Float[Tensor, "g m d"], orbit: Int[Tensor, "e n"], positions: int) -> None:
        """Take in the keys of some images: their numbers in the orbit, element by element."""
        squares = psi.square().sum(2, keepdim=True)
        logits = self.queries @ torch.cat([psi, squares], 2).transpose(1, 2)
        logits -= (self.squares * (self.precision / 2)).unsqueeze(2)
        keys = self.block.keys.to(orbit.device)
        sources = (orbit.flatten()[:, None] * positions + keys[:, None]).flatten(1)
        self._keep_nearest(psi, logits, sources, float(squares.max()))
        self._add_weights(logits, orbit)

    def _add_weights(self, logits: Float[Tensor, "g q m"], orbit: Int[Tensor, "e n"]) -> None:
        maximum = logits.amax(2)
        logits -= maximum.unsqueeze(2)
        logits.clamp_(min=NEGLIGIBLE)
        weights = logits.exp()
        total, first = weights.sum(2), (weights * logits).sum(2)
        new = SoftmaxMean(maximum, total, (first + total * maximum).unsqueeze(2))
        self.state = merge(self.state, new)
        by_image = weights.view(*maximum.shape, *orbit.shape, -1).sum((2, 4))
        self.log_weights.append((maximum.unsqueeze(2) + by_image.log()).flatten(0, 1))

    def _keep_nearest(
        self,
        psi: Float[Tensor, "g m d"],
        logits: Float[Tensor, "g q m"],
        sources: Int[Tensor, "g m"],
        largest: float,
    ) -> None:
        """Measure every key that could be among the k nearest, and keep those that are."""
        g, q, m = logits.shape
        error = 2 * (psi.shape[2] + 2) * _EPS * self.precision * (self.squares + self.signal**2 * largest)
        enough = self.logits[:, -1].view(g, q) - error
        near = logits >= enough.unsqueeze(2)
        if m >= self.k and int(near.sum()) > _FEW * self.k * g * q:
            enough = torch.maximum(enough, logits.topk(self.k, 2).values[:, :, -1] - 2 * error)
            near = logits >= enough.unsqueeze(2)
        asked = near.any(1)
        hashes = torch.zeros_like(sources)
        hashes[asked] = (_mixed(psi[asked]) * self.multipliers).sum(1)
        last, kept = self.hashes[:, -1].view(g, q, 1), self.sources[:, -1].view(g, q, 1) >= 0
        known = kept & (last == hashes[:, None])  # as near as the last one kept, to the bit, and later
        group, query, key = (near & ~known).nonzero(as_tuple=True)
        if len(key) == 0:
            return
        measured = [
            self._measure(psi, *some)
            for some in zip(
                *(part.split(max(1, _MEASURED_AT_ONCE // psi.shape[2])) for part in (group, query, key)),
                strict=True,
            )
        ]
        self._merge(group * q + query, torch.cat(measured), sources[group, key], hashes[group, key])

    def _measure(self, psi: Tensor, group: Tensor, query: Tensor, key: Tensor) -> Float[Tensor, " n"]:
        """Logits by one sum after another, whatever lies beside them."""
        squares = (self.phi[group, query] - self.signal * psi[group, key]).square()
        return squares.cumsum(1)[:, -1] * (-self.precision / 2)

    def _merge(self, rows: Tensor, logits: Tensor, sources: Tensor, hashes: Tensor) -> None:
        """Keep the k best of what was kept and what is new, in order."""
        r, k = self.sources.shape
        rows = torch.cat([torch.arange(r, device=rows.device).repeat_interleave(k), rows])
        logits = torch.cat([self.logits.flatten(), logits])
        sources = torch.cat([self.sources.flatten(), sources])
        order = sources.argsort(stable=True)
        order = order[logits[order].argsort(descending=True, stable=True)]
        order = order[rows[order].argsort(stable=True)]
        counts = rows.bincount(minlength=r)
        places = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts).repeat_interleave(
            counts
        )
        order = order[places < k]
        self.logits, self.sources = logits[order].view(r, k), sources[order].view(r, k)
        self.hashes = torch.cat([self.hashes.flatten(), hashes])[order].view(r, k)

    @property
    def log_totals(self) -> Float[Tensor, " r"]:
        """Log of the sum of all weights."""
        return (self.state.maximum + self.state.total.log()).flatten()

    @property
    def entropies(self) -> Float[Tensor, " r"]:
        """In nats; at least 0."""
        return (self.log_totals - finalize(self.state).flatten()).clamp(min=0)

    @property
    def by_image(self) -> Float[Tensor, " n"]:
        """The weight of every image, over all queries."""
        return (torch.cat(self.log_weights, 1) - self.log_totals[:, None]).exp().sum(0)


def _mixed(numbers: Float[Tensor, "n d"]) -> Int[Tensor, "n d"]:
    """Integers for a hash that sees every bit (Steele, Lea & Flood 2014, SplitMix)."""
    bits = (numbers + 0.0).view(torch.int64)  # -0 is 0
    bits = (bits ^ (bits >> 30)) * -0x40A7B892E31B1A47
    bits = (bits ^ (bits >> 27)) * -0x6B2FB644ECCEEE15
    return bits ^ (bits >> 31)
