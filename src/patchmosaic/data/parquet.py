"""Parquet files in the layout of the Hugging Face Hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from patchmosaic.data.decode import decode
from patchmosaic.data.source import Block, Source, checked_labels, stack_runs
from patchmosaic.errors import InputError, refusing

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "fine_label")
ROWS_AT_ONCE = 64
REMEDY = "download or write it again"


def parquet_source(path: Path) -> Source:
    """Encoded images in a column "image" (struct of bytes and path, or binary), integers in "label".

    Class names come from the Hub's schema metadata where present.

    Raises:
        InputError: the file cannot be read or has no such image column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with refusing(path, REMEDY, OSError, pa.ArrowException), pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        image_column = _image_column(schema, path)
        label_column = next((name for name in LABEL_COLUMNS if name in schema.names), None)
        count = file.metadata.num_rows
        labels = None if label_column is None else file.read([label_column])[label_column].to_numpy()
    read = partial(_blocks, path, image_column)
    if label_column is None:
        return Source(path.stem, str(path), count, read)
    known, names = checked_labels(labels, count, _class_names(schema, label_column), str(path))
    return Source(path.stem, str(path), count, read, known, names)


def _image_column(schema: pa.Schema, path: Path) -> str:
    import pyarrow as pa

    for name in IMAGE_COLUMNS:
        if name in schema.names:
            kind = schema.field(name).type
            if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                kind = kind.field("bytes").type
            if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                return name
    raise InputError(
        f'{path} has no column "image" of encoded images, only {", ".join(schema.names)}: '
        "write it in the Hugging Face Hub's layout"
    )


def _class_names(schema: pa.Schema, column: str) -> tuple[str, ...]:
    metadata = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        return tuple(map(str, json.loads(metadata)["info"]["features"][column]["names"]))
    except (KeyError, TypeError, ValueError):
        return ()


def _blocks(path: Path, column: str, rows: np.ndarray) -> Iterator[Block]:
    import pyarrow as pa

    with refusing(path, REMEDY, OSError, pa.ArrowException):
        yield from stack_runs(_images(path, column, rows))


def _images(path: Path, column: str, rows: np.ndarray) -> Iterator[tuple[np.ndarray, str]]:
    """Decode the given rows, passing over row groups without any of them."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        lengths = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        starts = np.cumsum([0, *lengths])
        for group in np.unique(np.searchsorted(starts, rows, side="right") - 1):
            start = starts[group]
            for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=[int(group)], columns=[column]):
                first, last = np.searchsorted(rows, (start, start + len(batch)))
                for row in rows[first:last]:
                    where = f"{path} row {row}"
                    yield decode(_encoded(batch.column(0)[int(row - start)].as_py(), where), where), where
                start += len(batch)
                if last == len(rows):
                    return


def _encoded(cell: dict[str, bytes | None] | bytes | None, where: str) -> bytes:
    encoded = cell["bytes"] if isinstance(cell, dict) else cell
    if encoded is None:
        raise InputError(f"{where} has no image bytes: write the file with its images embedded")
    return encoded
