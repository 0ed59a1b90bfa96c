"""An explanation that is recorded and can be resumed."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from patchmosaic.errors import check_count
from patchmosaic.explain import (
    Consistency,
    Mosaic,
    Provenance,
    consistency,
    mosaic,
    patch_counts,
    provenance,
)
from patchmosaic.explanation.subject import Subject
from patchmosaic.locality import window_at
from patchmosaic.machine import MAX_SOURCES
from patchmosaic.records import (
    RunFolder,
    read_tensors,
    versions,
    write_csv,
    write_json,
    write_tensors,
    write_text,
)
from patchmosaic.sampling import draw_noise, generators, reverse_flow

RESULTS = (
    "mosaic.png",
    "steps.png",
    "belief.png",
    "consistency.png",
    "fragments.csv",
    "provenance.safetensors",
    "explain.html",
    "summary.json",
)
COLUMNS = (
    *("picture", "fragment", "pixels", "training_image", "source_file", "class", "down", "right", "element"),
    *("top", "bottom", "left", "right_edge"),
)

_NAMES = [part.name for part in fields(Provenance) if part.name not in ("wraps", "pixel")]


@dataclass(frozen=True, eq=False)
class TracedStep:
    """One step of the flow, and where the pixels of its clean prediction come from."""

    time: float
    alpha_bar: float
    window: int | None
    patches: int  # the most that may stand in for a pixel
    state: Float[Tensor, "1 c h w"]
    prediction: Float[Tensor, "1 c h w"]
    found: Provenance


@dataclass(frozen=True, eq=False)
class Explanation:
    """All that is shown.

    Attributes:
        steps: most noise first; the last prediction is the picture.
        mosaics: of the picture, and of others from the same noise, in the limit of zero noise; by name.
        consistency: of each of them.
        images: the pictures themselves.
    """

    steps: tuple[TracedStep, ...]
    mosaics: dict[str, Mosaic]
    consistency: dict[str, Consistency]
    images: dict[str, Float[Tensor, "1 c h w"]]


@final
class Run:
    """An explanation and the folder that holds it.

    ``run.json`` is written first and ``summary.json`` last; in between ``unfinished/`` holds traced steps.

    Args:
        folder: where; made if missing.
        of: the run that is explained, for the record.
        sample: which of its pictures.
        subject: that picture.
        k: sources to name for each pixel.
    """

    def __init__(self, folder: Path, of: Path, sample: int, subject: Subject, k: int):
        check_count("--sources", k, most=MAX_SOURCES)
        self.subject, self.k = subject, k
        record = {
            "config": {"run": str(of), "sample": sample, "machine": subject.name, "k": k},
            "subject": {"seed": subject.seed, "label": subject.label, "steps": len(subject.times)},
            "data": {"name": subject.data.name, "fingerprint": subject.data.fingerprint},
            "work": {"threads": torch.get_num_threads()},
            "versions": versions(),
        }
        self.files = RunFolder(folder, "explain", record, RESULTS)

    def trace(self) -> Explanation:
        """Draw the picture again, tracing every step that is not traced yet."""
        from tqdm import tqdm

        subject = self.subject
        labels = None if subject.label is None else torch.tensor([subject.label])
        rngs = generators([subject.seed])
        noise = draw_noise(rngs, subject.machine.dictionary.shape, subject.dtype)
        flow = reverse_flow(
            subject.machine, noise, subject.times, subject.schedule, labels, subject.solver, rngs
        )
        steps = []
        for i, step in enumerate(
            tqdm(flow, total=len(subject.times), unit="step", desc="tracing", disable=None)
        ):
            found = self._provenance(f"step-{i}", step.state, step.alpha_bar, labels)
            window = window_at(subject.machine.locality, step.alpha_bar)
            patches = int(patch_counts(subject.machine, step.alpha_bar, subject.label).max())
            steps.append(
                TracedStep(step.time, step.alpha_bar, window, patches, step.state, step.prediction, found)
            )
        images = {subject.name: steps[-1].prediction, **subject.others}
        mosaics, consistencies = {}, {}
        for i, (name, image) in enumerate(images.items()):
            found = self._provenance(f"picture-{i}", image, 1.0, labels)
            mosaics[name] = mosaic(found)
            consistencies[name] = consistency(image, found.centres(subject.machine))
        return Explanation(tuple(steps), mosaics, consistencies, images)

    def _provenance(self, name: str, x: Tensor, alpha_bar: float, labels: Tensor | None) -> Provenance:
        path = self.files.partial / f"{name}.safetensors"
        if not path.exists():
            found = provenance(self.subject.machine, x, alpha_bar, self.k, labels)
            write_tensors(path, _tensors(found))
        tensors, _ = read_tensors(path, _NAMES)
        wraps = self.subject.machine.rules.wraps
        return Provenance(**{name: tensors[name] for name in _NAMES}, wraps=wraps, pixel=None)

    def finish(self, explanation: Explanation) -> dict[str, Any]:
        """Write the results; returns the summary."""
        from patchmosaic import plots
        from patchmosaic.explanation import pictures
        from patchmosaic.explanation.page import page

        drawn = {
            "mosaic.png": pictures.mosaics(self.subject, explanation),
            "steps.png": pictures.steps(self.subject, explanation),
            "belief.png": pictures.belief(self.subject, explanation),
            "consistency.png": pictures.consistency(self.subject, explanation),
        }
        for name, picture in drawn.items():
            plots.save(picture, self.files.path / name)
        write_csv(self.files.path / "fragments.csv", COLUMNS, self._fragments(explanation))
        tensors = [_tensors(step.found) for step in explanation.steps]
        stacked = {
            name: torch.cat([part[name] for part in tensors]) for name in tensors[0] if name != "by_image"
        }
        stacked["image"] = self._original(stacked["image"])
        stacked |= {"by_image": tensors[-1]["by_image"], "indices": self.subject.data.indices}
        write_tensors(self.files.path / "provenance.safetensors", stacked)
        summary = self.summary(explanation)
        html = page(self, explanation, summary)
        write_text(self.files.path / "explain.html", html)
        write_json(self.files.path / "summary.json", summary)
        self.files.close()
        return summary

    def _original(self, image: Tensor) -> Tensor:
        """Numbers of training images in their source."""
        return torch.where(image < 0, image, self.subject.data.indices[image.clamp(min=0)])

    def summary(self, explanation: Explanation) -> dict[str, Any]:
        """What ``summary.json`` holds for each picture."""
        return {name: self._summary_of(explanation, name) for name in explanation.images}

    def _summary_of(self, explanation: Explanation, name: str) -> dict[str, Any]:
        found, consistency = explanation.mosaics[name], explanation.consistency[name]
        pixels, data = found.number.numel(), self.subject.data
        return {
            "fragments": len(found.fragments),
            "sources": len(found.sources()),
            "largest_fragment": found.fragments[0].size if found.fragments else 0,
            "largest_source": [
                {
                    "image": int(data.indices[image]),
                    **({"source_file": data.name_of(image)} if data.names else {}),
                    "pixels": size,
                }
                for image, size in found.sources()[:1]
            ],
            "ambiguous_share": int((found.number < 0).sum()) / pixels,
            "pixels": pixels,
            "locally_consistent_share": float(consistency.share[0]),
        }

    def _fragments(self, explanation: Explanation) -> Iterator[tuple[Any, ...]]:
        data = self.subject.data
        for name, found in explanation.mosaics.items():
            for n, part in enumerate(found.fragments):
                kind = "" if data.labels is None else data.class_names[int(data.labels[part.image])]
                source = (int(data.indices[part.image]), data.name_of(part.image), kind)
                yield (name, n, part.size, *source, part.down, part.right, part.element, *part.box)


def _tensors(found: Provenance) -> dict[str, Tensor]:
    return {name: getattr(found, name) for name in _NAMES}
