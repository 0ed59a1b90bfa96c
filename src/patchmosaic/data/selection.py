"""Which rows of a source to keep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from patchmosaic.data.source import Source
from patchmosaic.errors import InputError

Classes = str | int | Sequence[str | int]
_NAMES_SHOWN = 20


def select_rows(source: Source, classes: Classes | None, limit: int | None, seed: int | None) -> np.ndarray:
    """Ascending int64 row numbers: those of the classes, then the first or a random `limit` of them.

    Raises:
        InputError: an unknown class, classes of an unlabelled source, or nothing left.
    """
    if source.count == 0:
        raise InputError(f"{source.where} holds no images: give a source with at least one")
    rows = np.arange(source.count)
    if classes is not None:
        rows = rows[_in_classes(source, classes)]
    if limit is None or limit >= len(rows):
        return rows
    if seed is None:
        return rows[:limit]
    return rows[np.sort(np.random.default_rng(seed).permutation(len(rows))[:limit])]


def _in_classes(source: Source, classes: Classes) -> np.ndarray:
    if source.labels is None:
        raise InputError(f"{source.where} has no labels: leave classes out")
    wanted = [classes] if isinstance(classes, str) or not isinstance(classes, Iterable) else list(classes)
    kept = np.isin(source.labels, [_class_number(source, item) for item in wanted])
    if not kept.any():
        raise InputError(f"{source.where} has no image of classes {wanted}: choose other classes")
    return kept


def _class_number(source: Source, item: str | int) -> int:
    number = class_number(source.class_names, item)
    if number is not None and 0 <= number < len(source.class_names):
        return number
    known = listed(source.class_names, range(len(source.class_names)))
    raise InputError(f"{source.where} has no class {item!r}: choose from {known}")


def class_number(names: Sequence[str], item: str | int) -> int | None:
    """The number of a class by its name, or else the number that is given, be it in digits; None without one."""
    if isinstance(item, str):
        return names.index(item) if item in names else int(item) if item.isdecimal() else None
    return int(item) if isinstance(item, int | np.integer) else None


def listed(names: Sequence[str], numbers: Sequence[int]) -> str:
    """Some classes, by number and, where that says more, name."""
    shown = ", ".join(
        str(number) if names[number] == str(number) else f"{number} {names[number]!r}"
        for number in numbers[:_NAMES_SHOWN]
    )
    return shown + (f" and so on up to {numbers[-1]}" if len(numbers) > _NAMES_SHOWN else "")
