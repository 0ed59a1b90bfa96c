"""An audit that is recorded and can be resumed."""

from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from patchmosaic.auditing.audit import AT_ONCE, held_out_pictures
from patchmosaic.auditing.drawing import Drawing
from patchmosaic.auditing.fragments import Fragment
from patchmosaic.auditing.levels import check_alike, choose_window, grey_levels
from patchmosaic.auditing.search import Finding, Search
from patchmosaic.auditing.settings import SAMPLES, Settings
from patchmosaic.auditing.verdict import Report, Threshold, judge, score, threshold
from patchmosaic.data import Dataset
from patchmosaic.errors import InputError
from patchmosaic.records import RunFolder, read_tensors, versions, write_tensors

RESULTS = ("pictures.csv", "report.html", "report.json")


@final
class Run:
    """An audit and the folder that holds it.

    ``run.json`` is written first and ``report.json`` last; in between ``unfinished/`` holds finished batches.

    Args:
        folder: where; made if missing.
        settings: what decides the result.
        data: the training images, loaded as the settings say.
        device: where a network draws its pictures.

    Raises:
        InputError: if pictures and training images do not fit together; nothing is written then.
    """

    def __init__(self, folder: Path, settings: Settings, data: Dataset, device: str = "cpu"):
        self.settings, self.data = settings, data
        self.training = grey_levels(data.pixels, "training images")
        network = settings.network(device)
        self.drawing = None if network is None else Drawing(network, settings, data, device)
        if self.drawing is None:
            if settings.labels is not None:
                raise InputError("labels are for a network that draws: leave out --labels")
            check_alike(self.pictures, self.training, "the pictures")
        self.real, self.hidden = held_out_pictures(
            self.training, settings.real(), settings.seed, settings.held_out_count
        )
        self.window = choose_window(self.training.shape[1:], settings.window)
        results = RESULTS if self.drawing is None else (SAMPLES, *RESULTS)
        self.files = RunFolder(folder, "audit", self._record(), results)

    @property
    def count(self) -> int:
        """Number of pictures."""
        return len(self.pictures if self.drawing is None else self.drawing.seeds)

    @cached_property
    def pictures(self) -> Tensor:
        """What is audited, as bytes (N, C, H, W); a network draws what it has not drawn yet."""
        return self._given[0] if self.drawing is None else self.drawing.draw(self.files)

    def name_of(self, picture: int) -> str:
        """The name of picture number ``picture``; empty where pictures are no files."""
        names = self._given[1] if self.drawing is None else None
        return "" if names is None else names[picture]

    @cached_property
    def _given(self) -> tuple[Tensor, tuple[str, ...] | None]:
        return self.settings.pictures()

    def _record(self) -> dict[str, Any]:
        sets = {"held_out": self.real}
        if self.drawing is None:
            sets["pictures"] = self.pictures
        prints: dict[str, Any] = {
            name: {"fingerprint": sha256(images.numpy().tobytes()).hexdigest(), "count": len(images)}
            for name, images in sets.items()
        }
        if self.drawing is not None:
            prints["network"] = {"fingerprint": self.drawing.network.fingerprint}
        return {
            "config": asdict(self.settings),
            "data": {
                "name": self.data.name,
                "fingerprint": self.data.fingerprint,
                "shape": list(self.data.pixels.shape),
            },
            **prints,
            "search": {"window": self.window},
            "versions": versions(),
        }

    def audit(self) -> tuple[list[Report], Threshold]:
        """Search for every picture that is not done yet, held-out ones first, and judge."""
        from tqdm import tqdm

        pixels = self.training.shape[2] * self.training.shape[3]
        nothing = torch.full((len(self.pictures),), -1)
        search: list[Search] = []
        with tqdm(
            total=len(self.real) + len(self.pictures), unit="picture", desc="auditing", disable=None
        ) as bar:
            real = list(self._findings("held-out", self.real, self.hidden, search, bar))
            found = list(self._findings("pictures", self.pictures, nothing, search, bar))
        limit = threshold([score(one, pixels) for one in real])
        return [judge(one, pixels, limit) for one in found], limit

    def _findings(
        self, name: str, pictures: Tensor, hidden: Tensor, search: list[Search], bar: Any
    ) -> Iterator[Finding]:
        """In batches, each kept once it is done; ``search`` is filled when first needed."""
        parts = zip(pictures.split(AT_ONCE), hidden.split(AT_ONCE), strict=True)
        for number, (some, own) in enumerate(parts):
            path = self.files.partial / f"{name}-{number}.safetensors"
            if not path.exists():
                if not search:
                    bar.set_postfix_str("sorting the training windows")
                    search.append(Search(self.training, self.window))
                    bar.set_postfix_str(name)
                _save(path, search[0](some, own))
            bar.update(len(some))
            yield from _load(path)


def _save(path: Path, found: list[Finding]) -> None:
    """A batch of findings as tensors."""
    every = [fragment for finding in found for fragment in finding.fragments]
    numbers = [[one.image, *one.offset, one.area, *one.box] for one in every]
    masks = [torch.from_numpy(one.mask) for one in every]
    tensors = {
        "textured": torch.tensor([finding.textured for finding in found]),
        "counts": torch.tensor([len(finding.fragments) for finding in found]),
        "sizes": torch.tensor(list(found[0].shares)),
        "shares": torch.tensor([list(finding.shares.values()) for finding in found], dtype=torch.float64),
        "fragments": torch.tensor(numbers, dtype=torch.int64).view(-1, 8),
        "masks": torch.stack(masks) if masks else torch.zeros(0, dtype=torch.bool),
    }
    write_tensors(path, tensors)


def _load(path: Path) -> Iterator[Finding]:
    tensors, _ = read_tensors(path, ["textured", "counts", "sizes", "shares", "fragments", "masks"])
    counts = tensors["counts"].tolist()
    numbers = tensors["fragments"].split(counts)
    masks = tensors["masks"].split(counts)
    sizes = tensors["sizes"].tolist()
    for i, textured in enumerate(tensors["textured"].tolist()):
        fragments = [
            _fragment(row.tolist(), mask.numpy()) for row, mask in zip(numbers[i], masks[i], strict=True)
        ]
        yield Finding(textured, fragments, dict(zip(sizes, tensors["shares"][i].tolist(), strict=True)))


def _fragment(row: list[int], mask: np.ndarray) -> Fragment:
    image, dy, dx, area, top, left, bottom, right = row
    return Fragment(image, (dy, dx), area, (top, left, bottom, right), mask)
