"""Data sets of the Hugging Face Hub, through the optional `datasets` library."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from patchmosaic.data.decode import to_array
from patchmosaic.data.source import Block, Source, checked_labels, stack_runs
from patchmosaic.errors import InputError, refusing


def hub_source(name: str, split: str, first: int | None = None) -> Source:
    """The first image column and the first class-label column of a data set on the Hub.

    Args:
        name: as the Hub spells it.
        split: such as "train".
        first: stream so many rows and no more, as from a set too large to keep; None: all, downloaded once.

    Raises:
        InputError: `datasets` is not installed, the data set cannot be had, or it has no images.
    """
    where = f"hub:{name}"
    try:
        import datasets
    except ImportError as error:
        raise InputError(f"{where} needs the datasets library: pip install 'patchmosaic[hub]'") from error
    with refusing(where, f"check the name, the split {split!r} and the network", Exception):
        table: Any = datasets.load_dataset(name, split=split, streaming=first is not None)
        if first is not None:
            table = _download(table, first)
    features = table.features
    image_column = next((key for key, kind in features.items() if isinstance(kind, datasets.Image)), None)
    label_column = next(
        (key for key, kind in features.items() if isinstance(kind, datasets.ClassLabel)), None
    )
    if image_column is None:
        raise InputError(f"{where} has no image column, only {', '.join(features)}: choose another data set")
    title = f"{name.rsplit('/', 1)[-1]}-{split}"
    read = partial(_blocks, table.select_columns([image_column]), image_column, where)
    if label_column is None:
        return Source(title, where, len(table), read)
    class_names = tuple(features[label_column].names)
    labels, names = checked_labels(table[label_column][:], len(table), class_names, where)
    return Source(title, where, len(table), read, labels, names)


def _download(stream: Any, first: int) -> Any:
    """The beginning of a stream as a table, its images still encoded."""
    import datasets

    features = stream.features
    for name, kind in features.items():
        if isinstance(kind, datasets.Image):
            stream = stream.cast_column(name, datasets.Image(decode=False))
    return datasets.Dataset.from_list(list(stream.take(first)), features=features)


def _blocks(table: Any, column: str, where: str, rows: np.ndarray) -> Iterator[Block]:
    with refusing(where, "clear the cache of datasets and load it again", Exception):
        yield from stack_runs(_images(table, column, where, rows))


def _images(table: Any, column: str, where: str, rows: np.ndarray) -> Iterator[tuple[np.ndarray, str]]:
    for row, record in zip(rows, table.select(rows.tolist()), strict=True):
        yield to_array(record[column], f"{where} row {row}"), f"{where} row {row}"
