"""The posterior mean as a monoid: a softmax-weighted mean that can be summed in any pieces.

For logits l and values v it holds (maximum m, total Z, weighted V) = (max l, sum e^(l - m), sum e^(l - m) v).
Pieces merge associatively and commutatively, so the answer depends on neither chunk size nor order.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

NEGLIGIBLE = -80.0  # log of a weight beside the largest; exp is slow where it underflows


class SoftmaxMean(NamedTuple):
    """A partial posterior mean over some of the dictionary, for any batch shape ``...``."""

    maximum: Float[Tensor, "..."]
    total: Float[Tensor, "..."]
    weighted: Float[Tensor, "... v"]


def empty(shape: tuple[int, ...], values: int, device: torch.device | None = None) -> SoftmaxMean:
    """The neutral element: the sum over no keys, for a batch of ``shape`` and ``values`` numbers each."""
    zeros = torch.zeros((*shape, values), dtype=torch.float64, device=device)
    return SoftmaxMean(zeros.new_full(shape, -torch.inf), zeros.new_zeros(shape), zeros)


def update(
    state: SoftmaxMean, logits: Float[Tensor, "... q m"], values: Float[Tensor, "... m v"]
) -> SoftmaxMean:
    """Add m keys to a state of shape (..., q).

    Weights are taken in the dtype of ``values`` after the maximum is subtracted in that of ``logits``:
    float64 logits with float32 values cost float32 exponentials and lose no accuracy to large logits.
    """
    maximum = logits.amax(dim=-1)
    logits = (logits - _finite(maximum).unsqueeze(-1)).clamp_(min=NEGLIGIBLE)
    weights = logits.to(values.dtype).exp_()
    sums = (weights @ F.pad(values, (0, 1), value=1.0)).double()
    return merge(state, SoftmaxMean(maximum, sums[..., -1], sums[..., :-1]))


def merge(a: SoftmaxMean, b: SoftmaxMean) -> SoftmaxMean:
    """The sum over the keys of both."""
    maximum = torch.maximum(a.maximum, b.maximum)
    shift = _finite(maximum)
    scale_a, scale_b = (a.maximum - shift).exp(), (b.maximum - shift).exp()
    return SoftmaxMean(
        maximum,
        a.total * scale_a + b.total * scale_b,
        a.weighted * scale_a.unsqueeze(-1) + b.weighted * scale_b.unsqueeze(-1),
    )


def _finite(maximum: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Zero where nothing was summed, so that -inf - (-inf) does not arise."""
    return maximum.masked_fill(maximum == -torch.inf, 0.0)


def finalize(state: SoftmaxMean) -> Float[Tensor, "... v"]:
    """The posterior mean of the values; NaN where no key was added."""
    return state.weighted / state.total.unsqueeze(-1)
