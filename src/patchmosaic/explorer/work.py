"""Work for a page, piece by piece: every piece waits its turn, and a page that has gone away ends it."""

import json
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, final

import anyio
from anyio import to_thread

from patchmosaic.errors import InputError, is_out_of_memory

Json = dict[str, Any]
Job = Iterator[Json]

QUICK_PAIRS = 3e9  # of pixel and patch in a job, a few seconds
_MOST_JOBS = 40


@final
class Workshop:
    """Two lanes of threads, so that long work never holds up short work; in each, jobs take turns piece by piece."""

    def __init__(self) -> None:
        self._quick, self._slow = anyio.CapacityLimiter(2), anyio.CapacityLimiter(1)
        self._jobs = 0

    async def lines(self, begin: Callable[[], tuple[Job, float]]) -> AsyncGenerator[bytes, None]:
        """The messages of a job as lines of JSON.

        Args:
            begin: gives the job and its size in pairs of pixel and patch; it and each piece of the job run in a thread.
        """
        if self._jobs >= _MOST_JOBS:
            yield _line({"error": f"{_MOST_JOBS} others are waiting already: try again in a moment"})
            return
        self._jobs += 1
        try:
            job, pairs = await to_thread.run_sync(begin, limiter=self._quick)
            lane = self._quick if pairs <= QUICK_PAIRS else self._slow
            if lane.available_tokens < 1:
                yield _line({"progress": {"waiting": True}})
            while (message := await to_thread.run_sync(next, job, None, limiter=lane)) is not None:
                yield _line(message)
        except InputError as error:
            yield _line({"error": str(error)})
        except Exception as error:
            if is_out_of_memory(error):
                yield _line({"error": "out of memory: choose fewer training images with --limit"})
                return
            logging.getLogger(__name__).exception("a job failed")
            yield _line({"error": "patchmosaic itself failed: the terminal where it runs shows how"})
        finally:
            self._jobs -= 1


def counted(total: int, what: str, done: Callable[[], int], piece: Callable[[], object]) -> Job:
    """Pieces of work, with a message after each that says how far it is and how long the rest may take.

    Args:
        total: number of pieces.
        what: they do, such as "drawing".
        done: how many are; others may do some.
        piece: does one more.
    """
    begun, before = time.monotonic(), done()
    while done() < total:
        made = done() - before
        left = (time.monotonic() - begun) / made * (total - done()) if made else None
        yield {
            "progress": {"done": done(), "total": total, "what": what, "waiting": False, "seconds_left": left}
        }
        piece()


def _line(message: Json) -> bytes:
    return json.dumps(message).encode() + b"\n"
