"""How the box engine's time grows with the number of images, the window, the image size and the batch."""

from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch

from patchmosaic.bench.contestants import Call
from patchmosaic.bench.measure import timed
from patchmosaic.bench.plan import Cell, Plan, problem
from patchmosaic.bench.problem import Problem

_ENGINE = "box"
_BATCHES = (1, 2, 4, 8)
_PARTS = (0.125, 0.25, 0.5, 1.0)  # of the images
_SIDES = (0.375, 0.5, 0.75, 1.0)  # of the image size


class _Point(NamedTuple):
    axis: str
    value: int
    pairs: int
    call: Call


def measure_slopes(plan: Plan, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Time the box engine along four axes from one base, in turn within every repeat.

    The base is the first data set and machine, the middle window and level, and all images; a batch of one.

    Returns:
        For each axis, as JSON holds it: its values, the median seconds and the pairs of pixel and patch at
        each, and the slopes of both against the values on logarithmic axes, by least squares. Equal slopes
        mean that a pair costs the same.

    Raises:
        InputError: where the engine was not compiled.
    """
    points = _points(plan)
    for point in points:
        point.call()
    seconds: list[list[float]] = [[] for _ in points]
    for repeat in range(plan.repeats):
        turn = repeat % len(points)
        for i in [*range(turn, len(points)), *range(turn)]:
            say(f"slope of {points[i].axis}")
            seconds[i].append(timed(points[i].call)[0])
    found = []
    for axis in dict.fromkeys(point.axis for point in points):
        chosen = [(point, median(s)) for point, s in zip(points, seconds, strict=True) if point.axis == axis]
        values = [point.value for point, _ in chosen]
        pairs, times = [point.pairs for point, _ in chosen], [taken for _, taken in chosen]
        found.append(
            {"axis": axis, "values": values, "pairs": pairs, "seconds": times}
            | {"slope": fitted_slope(values, times), "pairs_slope": fitted_slope(values, pairs)}
        )
    return found


def fitted_slope(x: list[int], y: list[Any]) -> float | None:
    """The slope of log y against log x by least squares; None for fewer than two different x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0]) if len(set(x)) > 1 else None


def _points(plan: Plan) -> list[_Point]:
    middle = plan.windows[len(plan.windows) // 2]
    cell = Cell(plan.data[0], plan.machines[0], middle, plan.levels[len(plan.levels) // 2])
    base = problem(cell, plan.load(cell.data), plan.seed)
    counts = sorted({max(1, round(len(base.images) * part)) for part in _PARTS})
    points = [_point("images", count, base.first(count)) for count in counts]
    points += [_point("window", window, base._replace(window=window)) for window in sorted(plan.windows)]
    for side in sorted({max(4, round(plan.size * part)) for part in _SIDES}):
        smaller = problem(cell, plan.load(cell.data, side), plan.seed)
        points.append(_point("pixels", side * side, smaller))
    return points + [_point("batch", batch, base, batch) for batch in _BATCHES]


def _point(axis: str, value: int, question: Problem, batch: int = 1) -> _Point:
    machine = question.score_machine(_ENGINE)
    x = torch.cat([question.x] * batch)
    return _Point(axis, value, batch * question.pairs, lambda: machine.denoise(x, question.alpha_bar))
