"""What this computer can do at best: multiply-adds and exponentials per second, in float32 on all threads."""

import math
import time
from collections.abc import Callable

import torch

from patchmosaic.engines.native import library

_SIDE = 768  # of square matrices: 2 MiB each, worked on in blocks that fit the cache
_GRAIN = 1 << 15  # numbers that torch gives a thread at least; in and out they fit its own cache
_FEW = 1 << 11  # numbers that, in and out, fit a thread's first-level cache
_AT_ONCE = 1 << 12  # times that they are gone over in a call, so that starting the threads does not count
_ROUNDS, _ROUND_SECONDS = 8, 0.03


def fma_per_second() -> float:
    """Multiply-adds per second: a product of square matrices by ``torch.mm``, the fastest of some rounds."""
    a, b = torch.rand(_SIDE, _SIDE), torch.rand(_SIDE, _SIDE)
    out = torch.empty(_SIDE, _SIDE)
    return _SIDE**3 * _calls_per_second(lambda: torch.mm(a, b, out=out))


def exp_per_second() -> float:
    """Exponentials per second, over numbers in cache: the most of ``torch.exp``, ``torch.exp2`` and the engine."""
    numbers = torch.linspace(-20, 0, _GRAIN * torch.get_num_threads())
    out = torch.empty_like(numbers)
    rates = [
        _calls_per_second(lambda: torch.exp(numbers, out=out)),
        _calls_per_second(lambda: torch.exp2(numbers, out=out)),
    ]
    return max(len(numbers) * max(rates), _compiled_exp_per_second())


def _compiled_exp_per_second() -> float:
    compiled, threads = library(), torch.get_num_threads()
    if compiled is None:
        return 0.0
    numbers = torch.linspace(-20, 0, _FEW * threads)
    out = torch.empty_like(numbers)
    arguments = numbers.data_ptr(), out.data_ptr(), _FEW, _AT_ONCE, threads
    return len(numbers) * _AT_ONCE * _calls_per_second(lambda: compiled.box_exponentials(*arguments))


def _calls_per_second(call: Callable[[], object]) -> float:
    call()
    best = math.inf
    for _ in range(_ROUNDS):
        calls, started = 0, time.perf_counter()
        while time.perf_counter() - started < _ROUND_SECONDS:
            call()
            calls += 1
        best = min(best, (time.perf_counter() - started) / calls)
    return 1 / best
