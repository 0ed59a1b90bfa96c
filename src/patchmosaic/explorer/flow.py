"""A reverse flow that is taken step by step, kept, and traced where it is asked."""

import threading
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from patchmosaic.denoiser import Denoiser
from patchmosaic.explain import Mosaic, Provenance, mosaic, provenance
from patchmosaic.machine import ScoreMachine
from patchmosaic.sampling import Step, reverse_flow
from patchmosaic.schedule import Schedule

SOURCES = 8  # named for each pixel


@final
class Flow:
    """The steps from a noisy picture to a clean one; several threads may drive it, each step is taken once.

    Args:
        denoiser: a machine or a network.
        x: (1, C, H, W), the state at ``times[0]``.
        times: as for :func:`patchmosaic.reverse_flow`.
        schedule: likewise.
        label: the class, or None.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        x: Float[Tensor, "1 c h w"],
        times: tuple[float, ...],
        schedule: Schedule,
        label: int | None,
    ):
        self.denoiser, self.times, self.schedule, self.label = denoiser, times, schedule, label
        self.steps: list[Step] = []
        self._state = x
        self._traced: dict[int, Provenance] = {}
        self._mosaic: Mosaic | None = None
        self._lock = threading.Lock()

    @property
    def done(self) -> bool:
        """Whether every step is taken."""
        return len(self.steps) == len(self.times)

    @property
    def picture(self) -> Float[Tensor, "1 c h w"]:
        """Where the flow ends."""
        return self.steps[-1].next_state

    def advance(self) -> None:
        """Take the next step, if there is one."""
        with self._lock:
            if not self.done:
                labels = None if self.label is None else torch.tensor([self.label])
                left = self.times[len(self.steps) :]
                step = next(reverse_flow(self.denoiser, self._state, left, self.schedule, labels))
                self._state = step.next_state
                self.steps.append(step)

    def is_traced(self, step: int) -> bool:
        """Whether :meth:`trace` has the answer."""
        return step in self._traced

    def trace(self, machine: ScoreMachine, step: int) -> Provenance:
        """Where every pixel of a step's clean prediction comes from."""
        with self._lock:
            if step not in self._traced:
                taken = self.steps[step]
                self._traced[step] = provenance(machine, taken.state, taken.alpha_bar, SOURCES, self.label)
            return self._traced[step]

    def mosaic(self, machine: ScoreMachine) -> Mosaic:
        """The fragments of the finished picture, in the limit of zero noise."""
        with self._lock:
            if self._mosaic is None:
                self._mosaic = mosaic(provenance(machine, self.picture, 1.0, 1, self.label))
            return self._mosaic

    @property
    def nbytes(self) -> int:
        """What it holds."""
        states = 2 * self._state.nbytes * len(self.steps)
        return states + sum(
            part.nbytes
            for found in list(self._traced.values())
            for part in vars(found).values()
            if isinstance(part, Tensor)
        )
