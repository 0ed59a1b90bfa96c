"""A shard of WebDataset: a .tar in which files of one sample share a name up to its first dot."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from patchmosaic.data.decode import decode
from patchmosaic.data.folder import IMAGE_SUFFIXES
from patchmosaic.data.source import Block, Source, checked_labels, stack_runs
from patchmosaic.errors import InputError, refusing

CLASS = ".cls"  # a file with the number of the class


@dataclass
class _Sample:
    key: str
    image: tarfile.TarInfo | None = None
    label: int | None = None


def webdataset_source(path: Path) -> Source:
    """The images of a shard in their order; their classes where every one has a number in a .cls file.

    Raises:
        InputError: no .tar, no images in it, or classes of some images only.
    """
    with refusing(path, "copy or download it again", tarfile.TarError, OSError, ValueError):
        samples = _samples(path)
    if not samples:
        known = ", ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
        raise InputError(f"{path} holds no images: give a .tar with {known} files")
    members = [sample.image for sample in samples if sample.image is not None]
    read, name_of = partial(_blocks, path, members), partial(_name, samples)
    labelled = [sample.label for sample in samples if sample.label is not None]
    if not labelled:
        return Source(path.stem, str(path), len(samples), read, name_of=name_of)
    if len(labelled) < len(samples):
        missing = len(samples) - len(labelled)
        raise InputError(f"{path}: {missing} of {len(samples)} images have no class: add their {CLASS} files")
    labels, names = checked_labels(labelled, len(samples), (), str(path))
    return Source(path.stem, str(path), len(samples), read, labels, names, name_of)


def _samples(path: Path) -> list[_Sample]:
    found: dict[str, _Sample] = {}
    with tarfile.open(path, "r:") as shard:
        for member in shard:
            folder, _, name = member.name.rpartition("/")
            key, _, ending = name.partition(".")
            if not member.isfile() or not key:
                continue
            key = f"{folder}/{key}"
            sample = found.setdefault(key, _Sample(key))
            suffix = f".{ending.lower()}"
            if suffix == CLASS:
                sample.label = int(_content(shard, member))
            elif suffix.endswith(IMAGE_SUFFIXES):
                sample.image = sample.image or member
    return [sample for sample in found.values() if sample.image is not None]


def _name(samples: Sequence[_Sample], row: int) -> str:
    return samples[row].key.removeprefix("/")


def _content(shard: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = shard.extractfile(member)
    return b"" if file is None else file.read()


def _blocks(path: Path, members: Sequence[tarfile.TarInfo], rows: np.ndarray) -> Iterator[Block]:
    with (
        refusing(path, "copy or download it again", tarfile.TarError, OSError),
        tarfile.open(path, "r:") as shard,
    ):
        yield from stack_runs(
            (decode(_content(shard, members[row]), f"{path}/{members[row].name}"), members[row].name)
            for row in rows
        )
