"""The window in which a machine is most like a network, noise level by noise level.

Along the network's own reverse trajectories its noise estimate is compared with a machine's at every window; the
best window of each step and trajectory counts, and their median is the schedule (Kamb & Ganguli 2025, appendix C.2
and fig. 4b).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchmosaic.denoiser import Denoiser, signal_and_noise
from patchmosaic.errors import InputError
from patchmosaic.locality import LocalitySchedule, check_window
from patchmosaic.machine import ScoreMachine
from patchmosaic.sampling import Step, reverse_flow, schedule_of, time_grid
from patchmosaic.schedule import Schedule

_LARGEST = 31  # the largest window tried where a network does not know what it sees


@dataclass(frozen=True, eq=False)
class Calibration:
    """How like a network a machine is at each noise level, trajectory and window.

    Attributes:
        alpha_bars: noise levels in [0, 1), lowest noise first.
        candidates: the windows tried, ascending.
        cosines: cosine similarity, float64 in [-1, 1], of both noise estimates over all pixels and channels.
    """

    alpha_bars: tuple[float, ...]
    candidates: tuple[int, ...]
    cosines: Float[Tensor, "steps count windows"] = field(repr=False)

    @property
    def best(self) -> Int[Tensor, "steps count"]:
        """The window of the largest cosine; the smallest of equals."""
        return torch.tensor(self.candidates)[self.cosines.argmax(-1)]

    @property
    def schedule(self) -> LocalitySchedule:
        """The median over trajectories; of an even number the lower one, so that it is odd and was tried."""
        return LocalitySchedule(self.alpha_bars, self._quantile(0.5, "lower"))

    @property
    def quartiles(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Windows between which half of the trajectories lie, or more: rounded outwards to ones that occur."""
        return self._quantile(0.25, "lower"), self._quantile(0.75, "higher")

    @property
    def cosine(self) -> Float[Tensor, " steps"]:
        """The mean over trajectories at the window of the schedule."""
        chosen = torch.tensor([self.candidates.index(window) for window in self.schedule.windows])
        return self.cosines.mean(1).gather(1, chosen[:, None])[:, 0]

    def _quantile(self, share: float, rounding: str) -> tuple[int, ...]:
        found = self.best.double().quantile(share, dim=1, interpolation=rounding)
        return tuple(map(int, found.tolist()))


def calibrate(
    network: Denoiser,
    machines: Mapping[str, ScoreMachine],
    noise: Float[Tensor, "b c h w"],
    windows: Sequence[int],
    steps: int = 20,
    schedule: Schedule | None = None,
    labels: Int[Tensor, " b"] | None = None,
) -> dict[str, Calibration]:
    """Find the window of each machine at each noise level of a network's reverse trajectories.

    Args:
        network: whose trajectories are followed, by deterministic DDIM.
        machines: by any name; what they look at themselves does not matter.
        noise: unit normal, one sample per trajectory.
        windows: odd integers to try; see :func:`candidate_windows`.
        steps: of the trajectories, at t = n/n, ..., 1/n.
        schedule: the noise schedule of the trajectories; None: the network's own ``schedule``, or the paper's cosine
            where it has none.
        labels: one class per trajectory, or None.

    Returns:
        A calibration for each machine.

    Raises:
        InputError: for no machines, trajectories or windows, windows that are not odd and positive, steps < 1, or
            images and labels that network or machines cannot use.
    """
    schedule = schedule or schedule_of(network)
    candidates = sort_windows(windows)
    if not machines or len(noise) == 0:
        raise InputError("calibration needs one machine and one sample of noise at least")
    times = time_grid(schedule, steps)
    flow = reverse_flow(network, noise, times, schedule, labels)
    found = [cosines(step, machines, candidates, labels) for step in flow]
    alpha_bars = tuple(schedule.alpha_bar(t) for t in reversed(times))
    return {
        name: Calibration(alpha_bars, candidates, torch.stack([step[name] for step in reversed(found)]))
        for name in machines
    }


@torch.no_grad()
def cosines(
    step: Step,
    machines: Mapping[str, ScoreMachine],
    windows: Sequence[int],
    labels: Int[Tensor, " b"] | None = None,
) -> dict[str, Float[Tensor, "b windows"]]:
    """How like the network's noise estimate at one of its steps each machine's is, for each window, on the CPU."""
    target = _epsilon(step, step.prediction)
    return {
        name: torch.stack(
            [
                torch.cosine_similarity(_epsilon(step, mean), target, dim=1)
                for mean in machine.denoise_windows(step.state, step.alpha_bar, windows, labels)
            ],
            dim=1,
        ).cpu()
        for name, machine in machines.items()
    }


def _epsilon(step: Step, mean: Tensor) -> Float[Tensor, "b n"]:
    """The noise estimate that a clean one implies, flat and in float64."""
    state = step.state.double()
    signal, noise = signal_and_noise(step.alpha_bar, state)
    return ((state - signal * mean.double()) / noise).flatten(1)


def candidate_windows(size: int, receptive_field: int | None = None) -> tuple[int, ...]:
    """Windows worth trying: 3, 5, ..., up to what the network sees and to what reaches the whole image.

    Args:
        size: the smaller side of the images in pixels.
        receptive_field: the side of the square that a pixel sees; None: not known, and 31 is the limit.
    """
    return tuple(range(3, max(3, min(2 * size - 1, receptive_field or _LARGEST)) + 1, 2))


def sort_windows(windows: Sequence[int]) -> tuple[int, ...]:
    """Odd integers, ascending and each once, or an InputError that says what is wrong with them."""
    if len(windows) == 0:
        raise InputError("calibration needs one window at least")
    return tuple(sorted(set(map(check_window, windows))))
