"""What a pixel may look at: the whole image, an odd window P, or a window that changes with the noise level."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from numbers import Real
from pathlib import Path
from typing import TypeAlias

from torch import Tensor

from patchmosaic.errors import InputError
from patchmosaic.records import read_json, write_json
from patchmosaic.schedule import Schedule, check_schedule


class LocalitySchedule:
    """An odd window P for every noise level.

    It is a function of alpha_bar alone, so one schedule serves any step count, sampler or noise schedule.
    Between its levels the nearest one holds, measured in the angle arccos(sqrt(alpha_bar)) (which is time, up
    to a factor, in the paper's cosine schedule).

    Args:
        alpha_bars: distinct noise levels in [0, 1], in any order.
        windows: as many odd integers.

    Raises:
        InputError: for other numbers, or none.
    """

    def __init__(self, alpha_bars: Sequence[float], windows: Sequence[int]):
        if len(alpha_bars) != len(windows) or len(windows) == 0:
            raise InputError(
                f"need as many windows as alpha_bars, and one at least: got {len(windows)} and {len(alpha_bars)}"
            )
        try:
            levels = [float(alpha_bar) for alpha_bar in alpha_bars]
        except (TypeError, ValueError):
            raise InputError(f"alpha_bars must be numbers in [0, 1], not {list(alpha_bars)}") from None
        pairs = sorted(zip(levels, map(check_window, windows), strict=True), reverse=True)
        self.alpha_bars = tuple(alpha_bar for alpha_bar, _ in pairs)
        self.windows = tuple(window for _, window in pairs)
        if not all(0 <= alpha_bar <= 1 for alpha_bar in self.alpha_bars):
            raise InputError("alpha_bars must lie in [0, 1]")
        if len(set(self.alpha_bars)) < len(self.alpha_bars):
            raise InputError("alpha_bars must differ from one another")
        angles = [_angle(alpha_bar) for alpha_bar in self.alpha_bars]
        self._bounds = [(a + b) / 2 for a, b in pairwise(angles)]

    @classmethod
    def from_steps(
        cls, windows: Sequence[int], schedule: Schedule, *, authors_index: bool = False
    ) -> "LocalitySchedule":
        """Read a list like the published ones: n windows, lowest noise first, at t = 1/n, ..., n/n.

        Args:
            windows: n odd integers.
            schedule: turns those times into noise levels.
            authors_index: read window i at t = i/n, one step off from where it was calibrated, as the
                authors' sampling loop does.

        Raises:
            InputError: for windows that are not odd, or no noise schedule.
        """
        check_schedule(schedule)
        first = 0 if authors_index else 1
        times = [(i + first) / len(windows) for i in range(len(windows))]
        return cls([schedule.alpha_bar(t) for t in times], windows)

    def __call__(self, alpha_bar: float) -> int:
        """The window at a noise level, alpha_bar in [0, 1]."""
        return self.windows[self.level(alpha_bar)]

    def level(self, alpha_bar: float) -> int:
        """Which of ``alpha_bars`` holds at a noise level, in [0, 1] or an InputError."""
        if not 0 <= alpha_bar <= 1:
            raise InputError(f"alpha_bar must lie in [0, 1], not {alpha_bar}")
        return bisect_left(self._bounds, _angle(alpha_bar))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LocalitySchedule):
            return NotImplemented
        return (self.alpha_bars, self.windows) == (other.alpha_bars, other.windows)

    def __hash__(self) -> int:
        return hash((self.alpha_bars, self.windows))

    def __repr__(self) -> str:
        return f"LocalitySchedule(windows={list(self.windows)}, lowest noise first)"

    def save(self, path: str | Path) -> None:
        """Write a small JSON."""
        write_json(path, {"alpha_bars": self.alpha_bars, "windows": self.windows})

    @classmethod
    def load(cls, path: str | Path) -> "LocalitySchedule":
        """Read what :meth:`save` wrote, or an InputError."""
        content = read_json(path)
        try:
            return cls(content["alpha_bars"], content["windows"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} is not a locality schedule ({error}); "
                'it must be JSON like {"alpha_bars": [0.99, 0.5], "windows": [3, 7]}'
            ) from None


Locality: TypeAlias = int | LocalitySchedule | None


def window_at(locality: Locality, alpha_bar: float) -> int | None:
    """The window of a locality at a noise level; None is the whole image."""
    return locality(alpha_bar) if isinstance(locality, LocalitySchedule) else locality


def check_window(window: int) -> int:
    """Return an odd positive integer, or say what is wrong with it."""
    if isinstance(window, bool) or not isinstance(window, Real | Tensor) or not float(window).is_integer():
        raise InputError(f"a window is an odd integer such as 5, not {window!r}")
    if window < 1 or window % 2 == 0:
        raise InputError(f"a window must be odd and positive (a pixel sits in its centre), not {window}")
    return int(window)


def _angle(alpha_bar: float) -> float:
    return math.atan2(math.sqrt(1 - alpha_bar), math.sqrt(alpha_bar))
