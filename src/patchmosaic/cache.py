"""What was made lately, within a bound on memory."""

import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar, final

_Value = TypeVar("_Value")


@final
class Cache(Generic[_Value]):
    """The values used last, as many as fit, for any number of threads. A copy begins empty.

    Args:
        limit: what the sizes may sum up to; the value used last is kept in any case.
        size: of a value.
    """

    def __init__(self, limit: float, size: Callable[[_Value], int]):
        self.limit, self.size = limit, size
        self._values: dict[object, _Value] = {}  # the last used last; replaced, never changed
        self._lock = threading.Lock()
        _caches.add(self)

    def __reduce__(self) -> tuple[type["Cache[_Value]"], tuple[float, Callable[[_Value], int]]]:
        return type(self), (self.limit, self.size)

    def __len__(self) -> int:
        return len(self._values)

    def held(self) -> int:
        """The sum of the sizes."""
        return sum(map(self.size, self._values.values()))

    def get(self, key: object, make: Callable[[], _Value]) -> _Value:
        """The value of a key, made if it is not here."""
        values = self._values
        if values and next(reversed(values)) == key:
            return values[key]
        with self._lock:
            values = self._values.copy()
            values[key] = value = values.pop(key) if key in values else make()
            sizes = {key: self.size(value) for key, value in values.items()}
            while len(values) > 1 and sum(sizes.values()) > self.limit:
                first = next(iter(values))
                del values[first], sizes[first]
            self._values = values
        return value


_caches: "weakref.WeakSet[Cache]" = weakref.WeakSet()


def _unlock() -> None:
    """A thread that another process has may hold a lock here for ever."""
    for cache in _caches:
        cache._lock = threading.Lock()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_unlock)
