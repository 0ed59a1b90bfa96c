"""What an engine must do."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from patchmosaic.dictionary import Dictionary
from patchmosaic.engines.trace import Traced, trace
from patchmosaic.symmetry import Rules


class Certified(NamedTuple):
    """Posterior means with a proven bound on the error that screening made.

    ``bound`` is 0 where the exact engine answered, whose own rounding it does not count.
    """

    mean: Float[Tensor, "b c h w"]
    bound: Float[Tensor, "b h w"]  # float64, of the largest error in any channel
    visited: Float[Tensor, " b"]  # the share of pairs of pixel and patch that was computed; 1 where exact


class Engine(ABC):
    """Computes posterior means of queries over a dictionary.

    Args:
        dictionary: the training images.
        rules: which training positions may stand in for a pixel.
        memory_budget: bytes of working memory, beside the dictionary itself.
    """

    def __init__(self, dictionary: Dictionary, rules: Rules, memory_budget: int):
        self.dictionary, self.rules, self.memory_budget = dictionary, rules, memory_budget

    @abstractmethod
    def posterior_mean(
        self,
        x: Float[Tensor, "b c h w"],
        alpha_bars: list[float],
        window: int | None,
        label: int | None,
    ) -> Float[Tensor, "b c h w"]:
        """The posterior mean of the clean pixels (eq. 3-10, 39-41), in the dtype of ``x``.

        A sample's answer must be the same to the bit whatever else is in the batch.

        Args:
            x: noisy images on the dictionary's device.
            alpha_bars: one noise level in [0, 1) per image.
            window: an odd P, or None for the whole image with one weight per image.
            label: the class whose training images to use; None for all.
        """

    def posterior_means(
        self,
        x: Float[Tensor, "b c h w"],
        alpha_bars: list[float],
        windows: list[int],
        label: int | None,
    ) -> Float[Tensor, "p b c h w"]:
        """:meth:`posterior_mean` through each of several windows."""
        return torch.stack([self.posterior_mean(x, alpha_bars, window, label) for window in windows])

    def certified(
        self,
        x: Float[Tensor, "b c h w"],
        alpha_bars: list[float],
        window: int | None,
        label: int | None,
    ) -> Certified:
        """:meth:`posterior_mean` with a bound on what was left out: nothing, unless the engine screens."""
        mean = self.posterior_mean(x, alpha_bars, window, label)
        zeros = torch.zeros(len(x), *x.shape[2:], dtype=torch.float64, device=x.device)
        return Certified(mean, zeros, zeros.new_ones(len(x)))

    def trace(
        self,
        x: Float[Tensor, "b c h w"],
        alpha_bars: list[float],
        window: int | None,
        label: int | None,
        k: int,
    ) -> Traced:
        """What the posteriors rest on: the k patches of most weight, entropies, and the weight of each image.

        Args:
            x: noisy images on the dictionary's device.
            alpha_bars: one noise level in [0, 1] per image; 1 is the limit of zero noise.
            window: see :meth:`posterior_mean`, as for ``label``.
            label: see there.
            k: how many patches to name.
        """
        return trace(self.dictionary, self.rules, self.memory_budget, x, alpha_bars, window, label, k)

    @abstractmethod
    def explain(self, window: int | None, dtype: torch.dtype) -> str:
        """Which engine does the work for such a window and dtype, and why: one line."""
