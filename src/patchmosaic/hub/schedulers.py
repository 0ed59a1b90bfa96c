"""Noise levels of diffusers' schedulers, and the authors' schedule as one of them.

diffusers knows four kinds of input to a model. Schedulers with ``alphas_cumprod`` alone (DDPM, DDIM, PNDM) and the
solvers in their convention (DPM-Solver++, UniPC) hand over sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eta. Euler's and
Heun's divide x_0 + sigma eta by sqrt(1 + sigma^2), which is the same with alpha_bar = 1 / (1 + sigma^2). Those of EDM
divide it by sqrt(sigma_data^2 + sigma^2) and take what is left to predict after a skip connection (Karras et al. 2022).
With ``use_flow_sigmas`` the solvers hand over (1 - sigma) x_0 + sigma eta.
"""

import math
from typing import Any, NamedTuple

import torch
from diffusers import DDIMScheduler, KDPM2AncestralDiscreteScheduler
from torch import Tensor

from patchmosaic.errors import InputError, check_count
from patchmosaic.nets.network import TRAINING_STEPS
from patchmosaic.schedule import ArraySchedule, CosineSchedule

PREDICTIONS = ("epsilon", "sample", "v_prediction")


class Level(NamedTuple):
    """One noise level as a scheduler means it."""

    alpha_bar: float
    scale: float  # the noisy picture of this library, over the model's input


def authors_scheduler(steps: int | None = None) -> DDIMScheduler:
    """The paper's cosine schedule, alpha_bar = cos^2(t / 1.008 pi / 2), as a ``DDIMScheduler``.

    In a number of steps that does not divide its training steps, diffusers' DDIM takes wrong steps without a word.

    Args:
        steps: number of steps it must be able to take: a scheduler takes numbers that divide its training steps, of
            which there are 1,000, or the least multiple of 1,000 that ``steps`` divides. Training step k is t = (k +
            1) / training steps.

    Raises:
        InputError: fewer steps than 1.
    """
    count = math.lcm(TRAINING_STEPS, 1 if steps is None else check_count("steps", steps))
    wanted = [CosineSchedule().alpha_bar((k + 1) / count) for k in range(count)]
    return DDIMScheduler(
        num_train_timesteps=count,
        trained_betas=_betas(wanted),
        timestep_spacing="trailing",
        set_alpha_to_one=True,
        clip_sample=False,
    )


def _betas(alpha_bars: list[float]) -> list[float]:
    """Betas whose running product stays with ``alpha_bars``: each makes up for the rounding, to float32, before it."""
    betas, product = [], 1.0
    for wanted in alpha_bars:
        alpha = float(torch.tensor(wanted / product, dtype=torch.float32))
        product *= alpha
        betas.append(1 - alpha)
    return betas


def check_scheduler(scheduler: Any) -> None:
    """InputError for a scheduler that does not go from signal to noise as diffusion does: those that predict flows."""
    if getattr(scheduler, "alphas_cumprod", None) is None and _sigma_data(scheduler) is None:
        raise InputError(
            f"{type(scheduler).__name__} has neither alphas_cumprod nor sigma_data, like all schedulers that predict "
            "flows: use another one, such as DDIMScheduler"
        )


def level(scheduler: Any, timestep: float) -> Level:
    """The noise level that a scheduler means by a timestep.

    Args:
        scheduler: of diffusers; where it has chosen its steps, those are looked up, sigma and all.
        timestep: one of its ``timesteps``, or a training step.

    Raises:
        InputError: a scheduler that predicts flows, or one without ``alphas_cumprod`` and without such a timestep.
    """
    check_scheduler(scheduler)
    sigma = _sigma(scheduler, timestep)
    if sigma is not None and _flows(scheduler):
        size = math.hypot(1 - sigma, sigma)
        return Level(((1 - sigma) / size) ** 2, 1 / size)
    if sigma is not None:
        data = _sigma_data(scheduler)
        spread = 1.0 if data is None else data
        return Level(1 / (1 + sigma**2), math.sqrt((spread**2 + sigma**2) / (1 + sigma**2)))
    table = getattr(scheduler, "alphas_cumprod", None)
    if table is None:
        raise InputError(
            f"{type(scheduler).__name__} has no step at {timestep}: call its set_timesteps first, or use "
            "a scheduler with alphas_cumprod"
        )
    if float(timestep).is_integer() and 0 <= timestep < len(table):
        return Level(float(table[int(timestep)]), 1.0)
    return Level(ArraySchedule(table).alpha_bar((timestep + 1) / len(table)), 1.0)


def _sigma(scheduler: Any, timestep: float) -> float | None:
    """From the steps that a scheduler with sigmas has chosen."""
    sigmas, timesteps = getattr(scheduler, "sigmas", None), getattr(scheduler, "timesteps", None)
    if sigmas is None or timesteps is None or scheduler.num_inference_steps is None:
        return None
    found = (timesteps.double().cpu() == timestep).nonzero().flatten().tolist()
    if not found:
        return None
    now: Any = getattr(scheduler, "step_index", None)  # of equal timesteps it tells which
    step = now if now in found else found[0]
    between = getattr(scheduler, "sigmas_interpol", None)  # KDPM2's: of every second step
    if between is None or step % 2 == 0:
        return float(sigmas[step])
    return float(between[step - isinstance(scheduler, KDPM2AncestralDiscreteScheduler)])


def _flows(scheduler: Any) -> bool:
    return bool(scheduler.config.get("use_flow_sigmas"))


def _sigma_data(scheduler: Any) -> float | None:
    return scheduler.config.get("sigma_data")


def expected(scheduler: Any, level: Level, x: Tensor, mean: Tensor) -> Tensor:
    """What a scheduler wants of a model: the posterior mean in its prediction type.

    Args:
        scheduler: of diffusers.
        level: the noise level of x.
        x: noisy pictures, sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eta.
        mean: the estimate of x_0 from them.

    Raises:
        InputError: an unknown prediction type, or one that diffusers' ``use_flow_sigmas`` does not go with.
    """
    kind = scheduler.config.get("prediction_type", "epsilon")
    if kind not in PREDICTIONS:
        raise InputError(f"prediction_type must be one of {', '.join(PREDICTIONS)}, not {kind!r}")
    if kind == "v_prediction" and _flows(scheduler):
        raise InputError(
            "use_flow_sigmas goes with prediction_type='epsilon' or 'sample', not with v_prediction"
        )
    signal, noise = math.sqrt(level.alpha_bar), math.sqrt(1 - level.alpha_bar)
    data = _sigma_data(scheduler)
    if data is not None:
        sigma = noise / signal
        kept = data**2 / (sigma**2 + data**2)
        scale = sigma * data / math.sqrt(sigma**2 + data**2) * (-1 if kind == "v_prediction" else 1)
        return (mean - kept * x / signal) / scale
    if kind == "sample":
        return mean
    epsilon = (x - signal * mean) / noise
    return epsilon if kind == "epsilon" else signal * epsilon - noise * mean
