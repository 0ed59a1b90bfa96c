"""What was computed lately, within a bound on memory."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar, final

_Value = TypeVar("_Value")


@final
class Cache(Generic[_Value]):
    """The values used last, as many as fit.

    Args:
        limit: what the sizes may sum up to; the value made last is kept in any case.
        size: of a value.
    """

    def __init__(self, limit: int, size: Callable[[_Value], int]):
        self.limit, self.size = limit, size
        self._values: OrderedDict[object, _Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object, make: Callable[[], _Value]) -> _Value:
        """The value of a key, made if it is not here."""
        with self._lock:
            if key not in self._values:
                self._values[key] = make()
            self._values.move_to_end(key)
            while len(self._values) > 1 and sum(map(self.size, self._values.values())) > self.limit:
                self._values.popitem(last=False)
            return self._values[key]
