"""Beyond one window: convex combinations of a machine's posterior means over windows."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchmosaic.denoiser import AlphaBar, Denoiser, per_sample
from patchmosaic.errors import InputError
from patchmosaic.locality import LocalitySchedule
from patchmosaic.machine import ScoreMachine


def mixture_weights(
    residuals: Float[Tensor, "levels candidates images pixels c"],
) -> Float[Tensor, "levels candidates"]:
    """The convex combination of windows' posterior means of least held-out risk, at each level.

    Minimises |sum_P w_P e_P|^2 over w >= 0 with sum w = 1, as non-negative least squares with a heavy row for the sum.
    """
    from scipy.optimize import nnls

    flat = residuals.flatten(2).double()
    gram = flat @ flat.transpose(1, 2) / flat.shape[2]
    found = []
    for level in gram:
        values, vectors = torch.linalg.eigh(level)
        root = (vectors * values.clamp(min=0).sqrt()).T
        heavy = 1e4 * float(level.diagonal().max().clamp(min=1e-12)) ** 0.5
        system = torch.cat([root, torch.full((1, len(root)), heavy, dtype=torch.float64)])
        weights = torch.from_numpy(nnls(system.numpy(), np.append(np.zeros(len(root)), heavy))[0])
        found.append(weights / weights.sum())
    return torch.stack(found)


class Mixture(Denoiser):
    """A machine that looks through several windows at once, and averages what it sees.

    Args:
        machine: what it looks at itself does not matter.
        alpha_bars: noise levels in [0, 1), in any order; between them the nearest one holds, as in a
            :class:`LocalitySchedule`.
        candidates: odd windows.
        weights: of the windows at each level, (levels, candidates); those of :func:`mixture_weights`.
    """

    def __init__(
        self,
        machine: ScoreMachine,
        alpha_bars: tuple[float, ...],
        candidates: tuple[int, ...],
        weights: Float[Tensor, "levels candidates"],
    ):
        if tuple(weights.shape) != (len(alpha_bars), len(candidates)):
            raise InputError(f"weights must have shape (levels, candidates), not {tuple(weights.shape)}")
        self.machine, self.candidates = machine, candidates
        self._levels = LocalitySchedule(alpha_bars, [1] * len(alpha_bars))
        self.weights = weights[torch.tensor(alpha_bars).argsort(descending=True)]

    @torch.no_grad()
    def denoise(
        self, x: Float[Tensor, "b c h w"], alpha_bar: AlphaBar, labels: Int[Tensor, " b"] | int | None = None
    ) -> Float[Tensor, "b c h w"]:
        """The weighted mean of the posterior means; arguments and errors of :meth:`ScoreMachine.denoise`."""
        values = per_sample(alpha_bar, len(x))
        weights = self.weights[[self._levels.level(value) for value in values]]
        used = (weights > 0).any(0).nonzero().flatten()
        windows = [self.candidates[i] for i in used]
        means = self.machine.denoise_windows(x, alpha_bar, windows, labels)
        return torch.einsum("pbchw,bp->bchw", means, weights[:, used].to(means))
