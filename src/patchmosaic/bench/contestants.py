"""Everything that is measured, behind one face: the library's engines and their rivals."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from patchmosaic.bench.problem import Problem
from patchmosaic.bench.rivals import MOST_NUMBERS, RIVALS
from patchmosaic.engines import ENGINES
from patchmosaic.errors import InputError

Call = Callable[[], Tensor]


class Contestant(ABC):
    """A way to answer a :class:`Problem`.

    Args:
        name: as in the table.
    """

    def __init__(self, name: str):
        self.name = name

    @abstractmethod
    def call(self, problem: Problem, chunk: int) -> Call:
        """Make all ready; the call returned computes the posterior mean and is what is timed.

        Raises:
            InputError: where the contestant cannot run; here, or at the call.
        """

    @abstractmethod
    def most_images(self, problem: Problem) -> int:
        """How many of the training images it can take."""

    @abstractmethod
    def trials(self, problem: Problem) -> list[int]:
        """Numbers of images to try it on, ascending; for those that work in chunks also the chunks to try."""

    @property
    @abstractmethod
    def chunked(self) -> bool:
        """Whether the chunk makes a difference."""


@final
class _Engine(Contestant):
    chunked = False

    def call(self, problem: Problem, chunk: int) -> Call:
        machine = problem.score_machine(self.name)
        return lambda: machine.denoise(problem.x, problem.alpha_bar)

    def most_images(self, problem: Problem) -> int:
        return len(problem.images)

    def trials(self, problem: Problem) -> list[int]:
        return _growing(len(problem.images))


@final
class _Rival(Contestant):
    @property
    def chunked(self) -> bool:
        return RIVALS[self.name].chunked

    def call(self, problem: Problem, chunk: int) -> Call:
        answer = RIVALS[self.name].answer

        def work() -> Tensor:
            with torch.inference_mode():
                return answer(problem, chunk)

        return work

    def most_images(self, problem: Problem) -> int:
        count = len(problem.images)
        fitting = max(1, MOST_NUMBERS // RIVALS[self.name].numbers_per_image(problem))
        return count if self.chunked else min(count, fitting)

    def trials(self, problem: Problem) -> list[int]:
        if not self.chunked:
            return _growing(self.most_images(problem))
        if chunk := RIVALS[self.name].chunk:
            return [min(len(problem.images), chunk(problem))]
        per_image, most = RIVALS[self.name].numbers_per_image(problem), MOST_NUMBERS.bit_length()
        return sorted(
            {min(len(problem.images), max(1, (1 << bits) // per_image)) for bits in range(18, most, 2)}
        )


def _growing(count: int) -> list[int]:
    """16, 64, 256, ..., below ``count``, and ``count``."""
    return [n for n in (4**i for i in range(2, 12)) if n < count] + [count]


NAMES = (*ENGINES, *RIVALS)


def contestant(name: str) -> Contestant:
    """The engine or rival of this name."""
    if name not in NAMES:
        raise InputError(f"contestants are {', '.join(NAMES)}, not {name!r}")
    return _Engine(name) if name in ENGINES else _Rival(name)
