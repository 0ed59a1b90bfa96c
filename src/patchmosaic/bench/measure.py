"""Timing: contestants in turn within every repeat, so that a noisy computer hurts all alike."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from torch import Tensor

from patchmosaic.bench.contestants import Call, Contestant, contestant
from patchmosaic.bench.memory import peak_memory
from patchmosaic.bench.problem import Problem
from patchmosaic.errors import InputError

_LANES = 64  # images that the box engine works on side by side: where not all are used, whole blocks are
_TURN = 0.05  # seconds of calls at least, where one takes less


@dataclass
class Entry:
    """What one contestant did with a problem.

    Attributes:
        contestant: its name.
        images: training images used: all, or as many as the budget or its memory allowed.
        chunk: images at a time, the fastest of those tried; None where there are no chunks.
        pairs: pairs of pixel and patch in one call.
        seconds: one number per repeat.
        max_error: the largest |D - D of the dense engine in float64|.
        checked_images: over how many training images that was compared.
        memory: peak bytes above what the images take; None if not measured.
    """

    contestant: str
    images: int
    chunk: int | None
    pairs: int
    seconds: list[float] = field(default_factory=list)
    max_error: float = 0.0
    checked_images: int = 0
    memory: int | None = None

    @property
    def rate(self) -> float:
        """Pairs per second, from the median of the repeats."""
        return self.pairs / median(self.seconds)

    @property
    def best_rate(self) -> float:
        """Pairs per second, from the fastest repeat."""
        return self.pairs / min(self.seconds)


@dataclass
class _Runner:
    """A contestant with the number of images and the chunk it runs on."""

    contestant: Contestant
    problem: Problem
    chunk: int
    call: Call
    answer: Tensor | None = None


def measure(
    problem: Problem,
    names: Sequence[str],
    repeats: int,
    budget: float,
    memory: bool,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[list[Entry], dict[str, str]]:
    """Time the contestants on a problem.

    Args:
        problem: the question, with all training images.
        names: the contestants.
        repeats: how often each is timed.
        budget: seconds of timed work for each contestant: one that needs more is given fewer images.
        memory: measure each one's peak memory in a process of its own.
        say: told what is going on, in a few words.

    Returns:
        An entry for each contestant that could run, and the reason for each that could not.

    Raises:
        InputError: if none could.
    """
    runners, left_out = _runners(problem, names, budget / repeats, say)
    if not runners:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise InputError(f"no contestant can run: {reasons}")
    entries = [
        Entry(
            runner.contestant.name,
            len(runner.problem.images),
            runner.chunk if runner.contestant.chunked else None,
            runner.problem.pairs,
        )
        for runner in runners
    ]
    field_of_play = list(zip(runners, entries, strict=True))
    for repeat in range(repeats):
        turn = repeat % len(field_of_play)
        for runner, entry in field_of_play[turn:] + field_of_play[:turn]:
            say(entry.contestant)
            seconds, runner.answer = timed(runner.call)
            entry.seconds.append(seconds)
    say("checking")
    _check(problem, runners, entries, budget / repeats)
    for runner, entry in field_of_play:
        if memory:
            say(f"memory of {entry.contestant}")
            entry.memory = peak_memory(runner.problem, entry.contestant, runner.chunk)
    return entries, left_out


def timed(call: Call) -> tuple[float, Tensor]:
    """Seconds that a call takes, and what it returns.

    Of short calls the first is not counted, which finds the caches and threads as another contestant left them; it is
    the mean of as many as then fill a turn.
    """
    started = time.perf_counter()
    answer = call()
    taken, calls = time.perf_counter() - started, 1
    if taken < _TURN:
        started, taken, calls = time.perf_counter(), 0.0, 0
        while taken < _TURN:
            answer = call()
            taken, calls = time.perf_counter() - started, calls + 1
    return taken / calls, answer


def _runners(
    problem: Problem, names: Sequence[str], seconds: float, say: Callable[[str], None]
) -> tuple[list[_Runner], dict[str, str]]:
    runners, left_out = [], {}
    for name in names:
        say(f"trying {name}")
        try:
            runners.append(_runner(contestant(name), problem, seconds))
        except InputError as error:
            left_out[name] = str(error)
    return runners, left_out


def _runner(competitor: Contestant, problem: Problem, seconds: float) -> _Runner:
    """Find the fastest chunk and as many images as one call of so many seconds allows; then warm up."""
    trials = competitor.trials(problem)
    competitor.call(problem.first(trials[0]), trials[0])()  # what happens only once happens here
    best_rate, chunk = 0.0, trials[0]
    patience = seconds / (2 if competitor.chunked else 4)
    for count in trials:
        call = competitor.call(problem.first(count), count)
        taken = min(timed(call)[0], timed(call)[0])
        if count / taken > best_rate:
            best_rate, chunk = count / taken, count
        elif count / taken < best_rate / 2:
            break
        if taken > patience:
            break
    count = max(1, int(best_rate * seconds))
    if count >= _LANES // 2:
        count = max(_LANES, count - count % _LANES)
    count = min(count, competitor.most_images(problem))
    part = problem.first(count)
    call = competitor.call(part, chunk)
    call()
    return _Runner(competitor, part, chunk, call)


def _check(problem: Problem, runners: list[_Runner], entries: list[Entry], seconds: float) -> None:
    """Compare every answer with float64, over as many images as that can do in about twice the time."""
    probe = problem.first(min(4, len(problem.images)))
    taken, _ = timed(probe.reference)
    most = max(1, int(2 * seconds / taken * len(probe.images)))
    references: dict[int, Tensor] = {}
    for runner, entry in zip(runners, entries, strict=True):
        part, answer = runner.problem, runner.answer
        if entry.images > most:
            part = part.first(most)
            answer = runner.contestant.call(part, runner.chunk)()
        count = len(part.images)
        if count not in references:
            references[count] = part.reference()
        if answer is not None:
            entry.max_error = float((answer - references[count]).abs().max())
        entry.checked_images = count
