"""Noise schedules: how much signal alpha_bar is left at time t, and back.

The forward process is ``phi_t = sqrt(alpha_bar) phi_0 + sqrt(1 - alpha_bar) eta`` with t in [0, 1],
t = 0 the clean image (Kamb & Ganguli 2025, section 2).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar, final

import numpy as np
import torch
from torch import Tensor

from patchmosaic.errors import InputError, check_count

MAX_STEPS = 1_000_000  # of a reverse flow

FloatOrTensor = TypeVar("FloatOrTensor", float, Tensor)


class Schedule(ABC):
    """A strictly decreasing map from time in [0, 1] to alpha_bar, with alpha_bar(0) = 1."""

    @abstractmethod
    def _alpha_bar(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def _time(self, alpha_bar: Tensor) -> Tensor: ...

    @final
    def alpha_bar(self, t: FloatOrTensor) -> FloatOrTensor:
        """The signal share at time ``t`` in [0, 1] (else InputError); a float for a float, else a float64 tensor."""
        return _in_unit_interval(self._alpha_bar, t, "time")

    @final
    def time(self, alpha_bar: FloatOrTensor) -> FloatOrTensor:
        """The time at which the signal share is ``alpha_bar``: the inverse of :meth:`alpha_bar`, with its errors."""
        return _in_unit_interval(self._time, alpha_bar, "alpha_bar")

    @final
    def times(self, steps: int) -> tuple[float, ...]:
        """The grid n/n, ..., 2/n, 1/n of a reverse flow in n ``steps``, from noise towards data.

        Raises:
            InputError: for less than one step, or more than a million.
        """
        check_count("steps", steps, most=MAX_STEPS)
        return tuple(i / steps for i in range(steps, 0, -1))


def check_schedule(schedule: object) -> None:
    """InputError for anything but a noise schedule."""
    if not isinstance(schedule, Schedule):
        raise InputError(f"schedule must be a noise schedule, such as pm.CosineSchedule(), not {schedule!r}")


def _in_unit_interval(function, value, name):  # type: ignore[no-untyped-def]
    tensor = torch.as_tensor(value, dtype=torch.float64)
    if not bool(((tensor >= 0) & (tensor <= 1)).all()):
        raise InputError(f"{name} must lie in [0, 1], not {value}")
    result = function(tensor)
    return result if isinstance(value, Tensor) else float(result)


class CosineSchedule(Schedule):
    """alpha_bar = cos^2(t / 1.008 * pi / 2): the paper's schedule, alpha_bar(1) = 1.554e-4."""

    def _alpha_bar(self, t: Tensor) -> Tensor:
        return torch.cos(t / 1.008 * math.pi / 2) ** 2

    def _time(self, alpha_bar: Tensor) -> Tensor:
        return (1.008 * 2 / math.pi * _angle(alpha_bar)).clamp(max=1.0)


class NicholCosineSchedule(Schedule):
    """alpha_bar = f(t) / f(0), f(t) = cos^2((t + s) / (1 + s) * pi / 2), s = .008 (Nichol & Dhariwal 2021)."""

    _s = 0.008

    def _alpha_bar(self, t: Tensor) -> Tensor:
        # cos((t + s) / (1 + s) pi / 2) as a sine: exactly 0 at t = 1.
        return (torch.sin((1 - t) / (1 + self._s) * math.pi / 2) / self._root_at_zero) ** 2

    def _time(self, alpha_bar: Tensor) -> Tensor:
        root = (alpha_bar.sqrt() * self._root_at_zero).clamp(max=1.0)
        return (1 - torch.asin(root) * 2 / math.pi * (1 + self._s)).clamp(0.0, 1.0)

    @property
    def _root_at_zero(self) -> float:
        return math.sin(1 / (1 + self._s) * math.pi / 2)


class LinearSchedule(Schedule):
    """beta(t) = beta_min + (beta_max - beta_min) t: the limit of DDPM's linear betas (Song et al. 2021, VP).

    Args:
        beta_min: noise rate at t = 0, at least 0.
        beta_max: noise rate at t = 1, larger than ``beta_min``.

    Raises:
        InputError: for other rates.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0):
        if not 0 <= beta_min < beta_max < math.inf:
            raise InputError(f"need 0 <= beta_min < beta_max < infinity, not {beta_min} and {beta_max}")
        self.beta_min, self.beta_max = beta_min, beta_max

    def _alpha_bar(self, t: Tensor) -> Tensor:
        return torch.exp(-self.beta_min * t - (self.beta_max - self.beta_min) * t**2 / 2)

    def _time(self, alpha_bar: Tensor) -> Tensor:
        rise = self.beta_max - self.beta_min
        root = torch.sqrt(self.beta_min**2 - 2 * rise * torch.log(alpha_bar))
        return ((root - self.beta_min) / rise).clamp(max=1.0)


class ExponentialSchedule(Schedule):
    """alpha_bar = exp(-rate t): a constant noise rate.

    Args:
        rate: beta, larger than 0.

    Raises:
        InputError: for another rate.
    """

    def __init__(self, rate: float = 8.0):
        if not 0 < rate < math.inf:
            raise InputError(f"rate must be larger than 0 and finite, not {rate}")
        self.rate = rate

    def _alpha_bar(self, t: Tensor) -> Tensor:
        return torch.exp(-self.rate * t)

    def _time(self, alpha_bar: Tensor) -> Tensor:
        return (-torch.log(alpha_bar) / self.rate).clamp(max=1.0)


class ArraySchedule(Schedule):
    """A schedule given as the alpha_bar of K training steps, such as a diffusers ``alphas_cumprod``.

    Entry k belongs to t = (k + 1) / K. In between, the angle arccos(sqrt(alpha_bar)) is linear in t.

    Args:
        alpha_bars: K strictly decreasing values in [0, 1).

    Raises:
        InputError: for other values.
    """

    def __init__(self, alpha_bars: Sequence[float] | np.ndarray | Tensor):
        table = torch.as_tensor(alpha_bars, dtype=torch.float64).cpu().flatten()
        table = torch.cat([torch.ones(1, dtype=torch.float64), table])
        if len(table) < 2 or not bool((table.diff() < 0).all()) or not float(table[-1]) >= 0:
            raise InputError("alpha_bars must be strictly decreasing values in [0, 1), lowest noise first")
        self._angles = _angle(table).numpy()
        self._times = np.linspace(0.0, 1.0, len(table))

    def _alpha_bar(self, t: Tensor) -> Tensor:
        angle = np.interp(t.cpu().numpy(), self._times, self._angles)
        return torch.cos(torch.as_tensor(angle, device=t.device)) ** 2

    def _time(self, alpha_bar: Tensor) -> Tensor:
        time = np.interp(_angle(alpha_bar).cpu().numpy(), self._angles, self._times)
        return torch.as_tensor(time, device=alpha_bar.device)


def _angle(alpha_bar: Tensor) -> Tensor:
    """arccos(sqrt(alpha_bar)), accurate at both ends."""
    return torch.atan2((1 - alpha_bar).sqrt(), alpha_bar.sqrt())


SCHEDULES: dict[str, type[Schedule]] = {
    "cosine": CosineSchedule,
    "nichol-cosine": NicholCosineSchedule,
    "linear": LinearSchedule,
    "exponential": ExponentialSchedule,
}
