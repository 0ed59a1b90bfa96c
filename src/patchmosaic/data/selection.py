"""Which rows of a source to keep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from patchmosaic.data.source import Source
from patchmosaic.errors import InputError

Classes = str | int | Sequence[str | int]
NAMES_SHOWN = 20


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
    names = source.class_names
    if isinstance(item, str) and item in names:
        return names.index(item)
    if isinstance(item, int | np.integer) and 0 <= item < len(names):
        return int(item)
    shown = ", ".join(f"{number} {name!r}" for number, name in enumerate(names[:NAMES_SHOWN]))
    more = f" and so on up to {len(names) - 1}" if len(names) > NAMES_SHOWN else ""
    raise InputError(f"{source.where} has no class {item!r}: choose from {shown}{more}")
