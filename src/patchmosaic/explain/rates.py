"""How often something happens, and whether it happens to the same samples."""

from typing import NamedTuple

from jaxtyping import Bool
from torch import Tensor

from patchmosaic.errors import InputError


class Rate(NamedTuple):
    """The share ``hits`` / ``total`` of samples, with Wilson's 95 % interval."""

    hits: int
    total: int
    rate: float
    low: float
    high: float


def wilson(happened: Bool[Tensor, " b"]) -> Rate:
    """The share of True, and the interval of probabilities p with (rate - p)^2 <= z^2 p (1 - p) / total, z = 1.96.

    Raises:
        InputError: for no samples.
    """
    from scipy.stats import binomtest

    total, hits = happened.numel(), int(happened.sum())
    if total == 0:
        raise InputError("a rate needs one sample at least")
    interval = binomtest(hits, total).proportion_ci(method="wilson")
    return Rate(hits, total, hits / total, *map(float, interval))


class Agreement(NamedTuple):
    """Whether two models err on the same seeds.

    Attributes:
        table: seeds on which ((neither, only the second), (only the first, both)) erred.
        phi: the correlation of the two, in [-1, 1]; NaN where one always or never errs.
        p: of Fisher's exact test, two-sided: how probable a table at least as uneven is if they err independently.
    """

    table: tuple[tuple[int, int], tuple[int, int]]
    phi: float
    p: float


def agreement(first: Bool[Tensor, " b"], second: Bool[Tensor, " b"]) -> Agreement:
    """Count on which of the same seeds two models err.

    Args:
        first: whether the first model errs on each seed.
        second: the same of the second, in the same order.

    Raises:
        InputError: for different numbers of seeds, or none.
    """
    from scipy.stats import fisher_exact

    if first.shape != second.shape or not first.numel():
        raise InputError(f"errors are compared on the same seeds, not {first.numel()} with {second.numel()}")
    neither, after, before, both = (
        int(((first == a) & (second == b)).sum()) for a in (False, True) for b in (False, True)
    )
    table = (neither, after), (before, both)
    margins = (neither + after) * (before + both) * (neither + before) * (after + both)
    phi = (neither * both - after * before) / margins**0.5 if margins else float("nan")
    return Agreement(table, phi, float(fisher_exact(table).pvalue))
