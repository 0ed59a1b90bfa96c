"""How many patches a pixel believes in, and how that falls with the noise."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchmosaic.explain.provenance import provenance
from patchmosaic.locality import window_at
from patchmosaic.machine import ScoreMachine
from patchmosaic.sampling import Step
from patchmosaic.symmetry import position_blocks


@dataclass(frozen=True, eq=False)
class Belief:
    """The belief of every pixel along reverse flows, step by step.

    Attributes:
        alpha_bars: noise levels, most noise first.
        entropy: in nats, at least 0.
        patches: number of patches that may stand in for a pixel.
    """

    alpha_bars: tuple[float, ...]
    entropy: Float[Tensor, "steps b h w"] = field(repr=False)
    patches: Int[Tensor, "steps b h w"] = field(repr=False)

    @property
    def effective(self) -> Float[Tensor, "steps b h w"]:
        """The effective number of patches: e to the entropy, from 1 to ``patches``."""
        return self.entropy.exp()


def believe(machine: ScoreMachine, flow: Iterable[Step], labels: Int[Tensor, " b"] | None = None) -> Belief:
    """Measure belief at every step of a flow, such as :func:`patchmosaic.reverse_flow` gives.

    Args:
        machine: whose belief.
        flow: of this machine, or of a network that it is held against.
        labels: (B,) classes, or None.
    """
    alpha_bars, entropies, patches = [], [], []
    for step in flow:
        alpha_bars.append(step.alpha_bar)
        entropies.append(provenance(machine, step.state, step.alpha_bar, 1, labels).entropy)
        groups = [None] * len(step.state) if labels is None else labels.tolist()
        patches.append(torch.stack([patch_counts(machine, step.alpha_bar, label) for label in groups]))
    return Belief(tuple(alpha_bars), torch.stack(entropies), torch.stack(patches))


def patch_counts(machine: ScoreMachine, alpha_bar: float, label: int | None = None) -> Int[Tensor, "h w"]:
    """How many training patches may stand in for each pixel at a noise level; translates count for whole images."""
    _, height, width = machine.dictionary.shape
    window, rules = window_at(machine.locality, alpha_bar), machine.rules
    images = len(machine.dictionary.members(label)) * len(machine.dictionary.group)
    if window is None:
        return torch.full((height, width), images * (height * width if rules.wraps else 1))
    counts = torch.empty(height * width, dtype=torch.long)
    for block in position_blocks(height, width, window, rules):
        counts[block.queries] = images * block.keys.shape[1]
    return counts.view(height, width)
