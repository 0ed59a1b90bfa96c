"""The reverse flow from noise to picture, on any denoiser."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchmosaic.denoiser import Denoiser
from patchmosaic.errors import InputError, check_count
from patchmosaic.schedule import CosineSchedule, Schedule, check_schedule

Denoise: TypeAlias = Callable[[Tensor, float], Tensor]
Draw: TypeAlias = Callable[[], Tensor]


class Step(NamedTuple):
    """One step of a reverse flow, for a whole batch."""

    time: float
    alpha_bar: float
    state: Float[Tensor, "b c h w"]
    """The noisy images at ``time``."""
    prediction: Float[Tensor, "b c h w"]
    """The clean images predicted from them."""
    next_state: Float[Tensor, "b c h w"]
    """The images at the next time; the result after the last step."""


class Sample(NamedTuple):
    """What a reverse flow made.

    ``states[k]`` are the noisy images at ``times[k]`` and ``predictions[k]`` the clean ones predicted from them,
    each (B, C, H, W), if the trajectory was kept; else both are empty.
    """

    images: Float[Tensor, "b c h w"]
    times: tuple[float, ...]
    alpha_bars: tuple[float, ...]
    states: tuple[Tensor, ...]
    predictions: tuple[Tensor, ...]


def ddim_step(
    denoise: Denoise, x: Tensor, alpha_bar: float, next_alpha_bar: float, draw: Draw
) -> tuple[Tensor, Tensor]:
    """Deterministic DDIM, first order (Song et al. 2021, eq. 12): returns the next state and D."""
    prediction = denoise(x, alpha_bar)
    return _towards(x, prediction, alpha_bar, next_alpha_bar), prediction


def heun_step(
    denoise: Denoise, x: Tensor, alpha_bar: float, next_alpha_bar: float, draw: Draw
) -> tuple[Tensor, Tensor]:
    """Heun's method for the same flow, two evaluations.

    Second order up to the last step, which returns D and leaves an error of the order of 1 - ab there.

    In x / sqrt(1 - ab) the flow is D d(sqrt(ab / (1 - ab))): DDIM is its Euler step, this its trapezoid.
    """
    prediction = denoise(x, alpha_bar)
    corrected = denoise(_towards(x, prediction, alpha_bar, next_alpha_bar), next_alpha_bar)
    return _towards(x, (prediction + corrected) / 2, alpha_bar, next_alpha_bar), prediction


def ddpm_step(
    denoise: Denoise, x: Tensor, alpha_bar: float, next_alpha_bar: float, draw: Draw
) -> tuple[Tensor, Tensor]:
    """Ancestral sampling: a draw from q(x_s | x_t, x_0 = D) (Ho et al. 2020, eq. 6-7)."""
    prediction = denoise(x, alpha_bar)
    variance = (1 - next_alpha_bar) / (1 - alpha_bar) * (1 - alpha_bar / next_alpha_bar)
    kept = (1 - next_alpha_bar - variance) ** 0.5 / (1 - alpha_bar) ** 0.5
    mean = next_alpha_bar**0.5 * prediction + kept * (x - alpha_bar**0.5 * prediction)
    return mean + variance**0.5 * draw(), prediction


def _towards(x: Tensor, prediction: Tensor, alpha_bar: float, next_alpha_bar: float) -> Tensor:
    """sqrt(ab_s) D + sqrt(1 - ab_s) eps, with the eps that D implies."""
    kept = ((1 - next_alpha_bar) / (1 - alpha_bar)) ** 0.5
    return (next_alpha_bar**0.5 - kept * alpha_bar**0.5) * prediction + kept * x


SOLVERS = {"ddim": ddim_step, "heun": heun_step, "ddpm": ddpm_step}


def check_seeds(seeds: Sequence[int] | np.ndarray | Tensor) -> None:
    """InputError unless there are seeds, each from 0 to 2^32 - 1: torch's generators ignore higher bits."""
    try:
        count = len(seeds)
    except TypeError:
        raise InputError(f"seeds must be a sequence, such as [0, 1, 2], not {seeds!r}") from None
    if count == 0:
        raise InputError("need at least one seed")
    for seed in seeds:
        check_count("a seed", seed, 0, (1 << 32) - 1)


def generators(seeds: Sequence[int] | np.ndarray | Tensor) -> list[torch.Generator]:
    """One random generator per sample, so that a seed gives the same sample in any batch.

    Raises:
        InputError: unless this is a sequence of seeds, each from 0 to 2^32 - 1.
    """
    check_seeds(seeds)
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]


def draw_noise(
    rngs: Sequence[torch.Generator], shape: tuple[int, int, int], dtype: torch.dtype = torch.float32
) -> Float[Tensor, "b c h w"]:
    """Unit noise (B, *shape), sample i from generator i; float64 noise is other noise than float32."""
    return torch.stack([torch.randn(shape, generator=rng, dtype=dtype) for rng in rngs])


def in_turn(labels: Sequence[int] | None, count: int) -> Int[Tensor, " count"] | None:
    """One class per sample: the given ones over and over."""
    return None if labels is None else torch.tensor([labels[i % len(labels)] for i in range(count)])


def schedule_of(denoiser: Denoiser) -> Schedule:
    """The noise schedule that a denoiser was made with, its ``schedule``; the paper's cosine where it has none."""
    own = getattr(denoiser, "schedule", None)
    return own if isinstance(own, Schedule) else CosineSchedule()


def time_grid(schedule: Schedule, steps: int, start: str = "aligned") -> tuple[float, ...]:
    """The times of a reverse flow, first to last.

    Args:
        schedule: the noise schedule.
        steps: n of the grid n/n, ..., 1/n.
        start: "aligned" begins at t = 1; "authors" begins at t = 1 - 1/n from the same unit noise, as the
            machine loop of the published code does.

    Raises:
        InputError: for an unknown start, no noise schedule, or too few steps or too many.
    """
    check_schedule(schedule)
    if start not in ("aligned", "authors"):
        raise InputError(f"start must be 'aligned' or 'authors', not {start!r}")
    times = schedule.times(steps)
    if start == "aligned":
        return times
    if steps == 1:
        raise InputError("start='authors' leaves out the first of the steps, so it needs 2 or more")
    return times[1:]


def reverse_flow(
    denoiser: Denoiser,
    x: Float[Tensor, "b c h w"],
    times: Sequence[float],
    schedule: Schedule,
    labels: Int[Tensor, " b"] | None = None,
    solver: str = "ddim",
    rngs: Sequence[torch.Generator] | None = None,
) -> Iterator[Step]:
    """Take the steps one by one; a flow can be taken up again from any state with the times that remain.

    Args:
        denoiser: a machine or a network.
        x: the state at ``times[0]``.
        times: decreasing, in (0, 1]; the last step returns the prediction itself.
        schedule: the noise schedule.
        labels: one class per sample, or None.
        solver: a name in ``SOLVERS``.
        rngs: one generator per sample; needed by "ddpm".

    Raises:
        InputError: for an unknown solver, no noise schedule, missing generators, or what the denoiser refuses.
    """
    check_schedule(schedule)
    if solver not in SOLVERS:
        raise InputError(f"solver must be one of {', '.join(SOLVERS)}, not {solver!r}")
    if solver == "ddpm" and (rngs is None or len(rngs) != len(x)):
        raise InputError(f"solver='ddpm' draws noise: pass one generator per sample ({len(x)})")

    def denoise(state: Tensor, alpha_bar: float) -> Tensor:
        return denoiser.denoise(state, alpha_bar, labels)

    def draw() -> Tensor:
        return draw_noise(rngs or (), (x.shape[1], x.shape[2], x.shape[3]), x.dtype).to(x.device)

    alpha_bars = [schedule.alpha_bar(t) for t in times]
    for i, (time, alpha_bar) in enumerate(zip(times, alpha_bars, strict=True)):
        if i + 1 < len(times):
            next_state, prediction = SOLVERS[solver](denoise, x, alpha_bar, alpha_bars[i + 1], draw)
        else:
            next_state = prediction = denoise(x, alpha_bar)
        yield Step(time, alpha_bar, x, prediction, next_state)
        x = next_state


def sample(
    denoiser: Denoiser,
    noise: Float[Tensor, "b c h w"],
    steps: int = 20,
    schedule: Schedule | None = None,
    labels: Int[Tensor, " b"] | None = None,
    *,
    solver: str = "ddim",
    start: str = "aligned",
    rngs: Sequence[torch.Generator] | None = None,
    keep_trajectory: bool = False,
    callback: Callable[[Step], None] | None = None,
) -> Sample:
    """Run the reverse flow from unit noise to pictures.

    Args:
        denoiser: a machine or a network.
        noise: unit normal (B, C, H, W), as from :func:`draw_noise`.
        steps: number of grid points n; t = n/n, ..., 1/n, and the last step returns D.
        schedule: the noise schedule; None: the denoiser's own, which a network has, or else the paper's cosine.
        labels: (B,) classes, or None.
        solver: "ddim", "heun" (two evaluations a step) or "ddpm" (random).
        start: "aligned", or "authors" to begin one grid point late (see :func:`time_grid`).
        rngs: one generator per sample, for "ddpm".
        keep_trajectory: keep every noisy state and clean prediction.
        callback: called with each :class:`Step`.

    Raises:
        InputError: for an unknown solver or start, no noise schedule, steps < 1, missing generators, or what the
            denoiser refuses.
    """
    schedule = schedule or schedule_of(denoiser)
    times = time_grid(schedule, steps, start)
    taken: list[Step] = []
    for step in reverse_flow(denoiser, noise, times, schedule, labels, solver, rngs):
        if callback is not None:
            callback(step)
        taken = [*taken, step] if keep_trajectory else [step]
    kept = taken if keep_trajectory else []
    return Sample(
        taken[-1].next_state,
        times,
        tuple(schedule.alpha_bar(t) for t in times),
        tuple(step.state for step in kept),
        tuple(step.prediction for step in kept),
    )
