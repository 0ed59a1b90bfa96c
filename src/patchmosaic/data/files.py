"""Which reader a path on disk needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from patchmosaic.data.arrays import npy_source, npz_source
from patchmosaic.data.folder import IMAGE_SUFFIXES, folder_source, image_source
from patchmosaic.data.idx import idx_source, is_idx
from patchmosaic.data.parquet import parquet_source
from patchmosaic.data.source import Source
from patchmosaic.data.webdataset import webdataset_source
from patchmosaic.errors import InputError

READERS: dict[str, Callable[[Path], Source]] = {
    ".parquet": parquet_source,
    ".npz": npz_source,
    ".npy": npy_source,
    ".tar": webdataset_source,
}


def path_source(path: Path) -> Source:
    """Open an existing file or folder, told apart by name.

    Raises:
        InputError: the kind of file is unknown, or its reader refuses it.
    """
    if path.is_dir():
        return folder_source(path)
    if not path.is_file():
        raise InputError(f"{path} is neither a file nor a folder: give the path of images")
    suffix = path.suffix.lower()
    reader = READERS.get(suffix)
    if reader is not None:
        return reader(path)
    if suffix in IMAGE_SUFFIXES:
        return image_source(path)
    if is_idx(path):
        return idx_source(path)
    raise InputError(
        f"{path} is of no known kind: give an image, a folder of images or a file ending in "
        f"{', '.join(READERS)} or .idx, or with idx3 in its name"
    )
