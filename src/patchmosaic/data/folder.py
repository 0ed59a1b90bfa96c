"""A folder of image files, with one subfolder per class or none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from patchmosaic.data.decode import decode
from patchmosaic.data.source import Block, Source, checked_labels, stack_runs
from patchmosaic.errors import InputError, refusing

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def image_source(path: Path) -> Source:
    """One image file, named by itself."""
    return Source(path.stem, str(path), 1, partial(_blocks, [path]), name_of=partial(_name, [path], 1))


def folder_source(folder: Path) -> Source:
    """Image files in order of name; each subfolder with images is a class, in order of name.

    Names that begin with a dot are passed over; folders within subfolders are not searched.

    Raises:
        InputError: there are no images, or some lie beside the class folders.
    """
    with refusing(folder, "check its permissions", OSError):
        loose = _image_files(folder)
        subfolders = sorted(entry for entry in folder.iterdir() if entry.is_dir() and _visible(entry))
        classes = {entry.name: files for entry in subfolders if (files := _image_files(entry))}
    if loose and classes:
        raise InputError(
            f"{folder} holds images beside its class folders ({loose[0].name}): move or remove them"
        )
    name = folder.resolve().name
    if loose:
        return Source(
            name, str(folder), len(loose), partial(_blocks, loose), name_of=partial(_name, loose, 1)
        )
    if not classes:
        known = ", ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
        raise InputError(
            f"{folder} holds no images, in itself or its subfolders: give a folder of {known} files"
        )
    paths = [path for files in classes.values() for path in files]
    numbers = np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()])
    labels, names = checked_labels(numbers, len(paths), tuple(classes), str(folder))
    return Source(
        name, str(folder), len(paths), partial(_blocks, paths), labels, names, partial(_name, paths, 2)
    )


def _visible(path: Path) -> bool:
    return not path.name.startswith(".")


def _image_files(folder: Path) -> list[Path]:
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in IMAGE_SUFFIXES and _visible(entry) and entry.is_file()
    )


def _name(paths: Sequence[Path], depth: int, row: int) -> str:
    return "/".join(paths[row].parts[-depth:])


def _blocks(paths: Sequence[Path], rows: np.ndarray) -> Iterator[Block]:
    return stack_runs((decode(paths[row], str(paths[row])), str(paths[row])) for row in rows)
