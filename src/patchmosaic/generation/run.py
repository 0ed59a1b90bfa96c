"""A recorded, resumable run: pictures from a machine, each beside its nearest training image."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from patchmosaic import presets, viz
from patchmosaic.data import Dataset, DataSettings
from patchmosaic.errors import InputError
from patchmosaic.locality import Locality, LocalitySchedule
from patchmosaic.machine import ScoreMachine
from patchmosaic.records import RunFolder, read_tensors, versions, write_json, write_tensors
from patchmosaic.sampling import (
    SOLVERS,
    Step,
    check_seeds,
    draw_noise,
    generators,
    in_turn,
    reverse_flow,
    time_grid,
)
from patchmosaic.schedule import SCHEDULES

_SECONDS_BETWEEN_CHECKPOINTS = 5.0


@dataclass(frozen=True)
class Config(DataSettings):
    """Everything that decides the result of a run; equal configurations give equal bytes."""

    machine: str = "bbels"
    window: int | None = None
    scales: str | None = None
    padding: str | None = None
    keys: str = "all"
    group: str = "identity"
    schedule: str = "cosine"
    steps: int = 20
    solver: str = "ddim"
    start: str = "aligned"
    seeds: tuple[int, ...] = tuple(range(8))
    labels: tuple[int, ...] | None = None
    dtype: str = "float32"
    trajectory: bool = False

    def __post_init__(self) -> None:
        known = (
            ("machine", presets.MACHINES),
            ("schedule", SCHEDULES),
            ("solver", SOLVERS),
            ("dtype", ("float32", "float64")),
        )
        for name, choices in known:
            if getattr(self, name) not in choices:
                raise InputError(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")
        time_grid(SCHEDULES[self.schedule](), self.steps, self.start)
        check_seeds(self.seeds)
        if self.window is not None and self.scales is not None:
            raise InputError("give a window or scales, not both")
        local = self.machine in presets.LOCAL_MACHINES
        if not local and (self.window is not None or self.scales is not None):
            raise InputError(f"{self.machine} sees the whole image: it takes no window and no scales")
        if self.keys == "inside" and self.machine not in ("es", "els"):
            raise InputError(f"keys inside the training images are a choice for els, not for {self.machine}")
        if self.padding is not None and self.machine != "ls":
            raise InputError(f"padding is a choice for ls only; {self.machine} has its own")

    def locality(self, data: Dataset) -> Locality:
        """The window, the named or saved scales, or the rule of thumb for the images' size."""
        if self.machine not in presets.LOCAL_MACHINES or self.window is not None:
            return self.window
        if self.scales is None:
            return presets.rule_of_thumb(min(data.pixels.shape[2:]))
        return presets.find_scales(self.scales, authors_index=self.start == "authors")

    def build(self, data: Dataset, engine: str, memory_budget: int, device: str) -> ScoreMachine:
        """The machine over ``data``."""
        options: dict[str, Any] = {"keys": self.keys, "group": self.group, "engine": engine}
        if self.machine in presets.LOCAL_MACHINES:
            options["locality"] = self.locality(data)
        if self.padding is not None:
            options["padding"] = self.padding
        make = presets.MACHINES[self.machine]
        machine = make(data.pixels, labels=data.labels, memory_budget=memory_budget, **options)
        data.check_labels(self.labels)
        return machine.to(device)


@final
class Run:
    """Pictures, and the folder that holds them.

    ``run.json`` (configuration, data fingerprint, versions) is written first, ``samples.safetensors`` and the
    pictures last; in between ``unfinished/`` holds finished batches and the state of the current one.

    Args:
        folder: where; made if missing.
        config: what decides the result.
        data: the loaded training images.
        machine: built by the configuration over the data.
    """

    def __init__(self, folder: Path, config: Config, data: Dataset, machine: ScoreMachine):
        self.folder, self.config, self.data, self.machine = folder, config, data, machine
        locality = machine.locality
        windows = locality.windows if isinstance(locality, LocalitySchedule) else locality
        alpha_bars = locality.alpha_bars if isinstance(locality, LocalitySchedule) else None
        record = {
            "config": asdict(config),
            "locality": {"windows": windows, "alpha_bars": alpha_bars},
            "data": {"name": data.name, "fingerprint": data.fingerprint, "shape": list(data.pixels.shape)},
            "work": {
                "engine": machine.explain_engine(dtype=getattr(torch, config.dtype)),
                "device": machine.dictionary.device.type,
                "threads": torch.get_num_threads(),
            },
            "versions": versions(),
        }
        self.files = RunFolder(
            folder, "generate", record, ("metrics.json", "grid.png", "samples.safetensors")
        )

    def describe_locality(self) -> str:
        """The windows used, in words."""
        windows = self.files.record["locality"]["windows"]
        if windows is None:
            return "each pixel seeing the whole image"
        if isinstance(windows, int):
            return f"each pixel seeing {windows} x {windows}"
        return (
            f"each pixel seeing from {windows[0]} x {windows[0]} (low noise) to {windows[-1]} x {windows[-1]}"
        )

    def labels(self) -> Tensor | None:
        """One class per sample: the given ones in turn."""
        return in_turn(self.config.labels, len(self.config.seeds))

    def finish(self, batch: int) -> None:
        """Join the batches, compare with the training images, draw, and clear up."""
        paths = [path for path, _ in self.files.batches(len(self.config.seeds), batch)]
        parts = [read_tensors(path, ["images"])[0] for path in paths]
        tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        labels = self.labels()
        images = tensors["images"]
        nearest = self.machine.dictionary.nearest(images, labels)
        found = self.machine.dictionary.images(nearest, images.dtype).cpu()
        rmse = (images - found).square().mean((1, 2, 3)).sqrt()
        tensors |= {"seeds": torch.tensor(self.config.seeds), "nearest": self.data.indices[nearest]}
        if labels is not None:
            tensors["labels"] = labels
        self._draw(images, found, tensors["nearest"], rmse, labels)
        metrics: dict[str, Any] = {"nearest_rmse": rmse.tolist(), "nearest_rmse_median": float(rmse.median())}
        if self.data.names is not None:
            metrics["nearest_file"] = [self.data.names[image] for image in nearest.tolist()]
        write_json(self.folder / "metrics.json", metrics)
        write_tensors(self.folder / "samples.safetensors", tensors)
        self.files.close()

    def _draw(self, images: Tensor, found: Tensor, rows: Tensor, rmse: Tensor, labels: Tensor | None) -> None:
        captions = []
        for i, seed in enumerate(self.config.seeds):
            name = "" if labels is None else f", {self.data.class_names[int(labels[i])]}"
            captions.append((f"seed {seed}{name}", f"no. {int(rows[i])}, rmse {float(rmse[i]):.2f}"))
        name = self.config.machine
        title = f"{presets.LONG_NAMES[name]} ({presets.short(name)}) on {self.data.name}"
        subtitle = "Left: drawn from noise by the closed-form machine. Right: the nearest training image."
        viz.save_png(viz.pairs(images, found, captions, title, subtitle), self.folder / "grid.png")


def generate(run: Run, batch: int) -> None:
    """Draw every sample of a run that is not drawn yet.

    Args:
        run: whose files are opened.
        batch: samples at a time; does not change the result.
    """
    from tqdm import tqdm

    steps = len(time_grid(SCHEDULES[run.config.schedule](), run.config.steps, run.config.start))
    with tqdm(total=len(run.config.seeds) * steps, unit="step", desc="drawing", disable=None) as bar:
        for path, rows in run.files.batches(len(run.config.seeds), batch):
            if path.exists():
                bar.update((rows.stop - rows.start) * steps)
            else:
                _draw_batch(run, path, rows, bar)
    run.finish(batch)


def _draw_batch(run: Run, path: Path, rows: slice, bar: Any) -> None:
    config = run.config
    schedule = SCHEDULES[config.schedule]()
    times = time_grid(schedule, config.steps, config.start)
    rngs = generators(config.seeds[rows])
    noise = draw_noise(rngs, run.machine.dictionary.shape, getattr(torch, config.dtype))
    labels = run.labels()
    flow = _Flow(noise, rngs, config.trajectory, path.with_suffix(".state"))
    bar.update(flow.steps * len(noise))
    saved = time.monotonic()
    try:
        for step in reverse_flow(
            run.machine,
            flow.x,
            times[flow.steps :],
            schedule,
            None if labels is None else labels[rows],
            config.solver,
            rngs,
        ):
            flow.take(step)
            bar.update(len(noise))
            if time.monotonic() - saved > _SECONDS_BETWEEN_CHECKPOINTS:
                flow.save()
                saved = time.monotonic()
    except KeyboardInterrupt:
        flow.save()
        raise
    write_tensors(path, flow.results())
    flow.path.unlink(missing_ok=True)


class _Flow:
    """How far a batch has come: its state, its generators, its trajectory; read back from ``path`` if there."""

    def __init__(self, noise: Tensor, rngs: list[torch.Generator], keep: bool, path: Path):
        self.x, self.rngs, self.keep, self.path, self.steps = noise, rngs, keep, path, 0
        self.states: list[Tensor] = []
        self.predictions: list[Tensor] = []
        self.rng_states = torch.empty(0)
        if path.exists():
            tensors, metadata = read_tensors(path, ["images", "rngs"])
            self.x, self.steps = tensors["images"], int(metadata["steps"])
            for rng, state in zip(rngs, tensors["rngs"], strict=True):
                rng.set_state(state.clone())  # it must be aligned in memory
            if keep and self.steps:
                self.states = list(tensors["states"].unbind(1))
                self.predictions = list(tensors["predictions"].unbind(1))

    def take(self, step: Step) -> None:
        self.x, self.steps = step.next_state, self.steps + 1
        # Generators move on between steps; what is saved must fit the state.
        self.rng_states = torch.stack([rng.get_state() for rng in self.rngs])
        if self.keep:
            self.states.append(step.state)
            self.predictions.append(step.prediction)

    def results(self) -> dict[str, Tensor]:
        """The images, and the trajectory as (B, steps, C, H, W)."""
        if not self.states:
            return {"images": self.x}
        return {
            "images": self.x,
            "states": torch.stack(self.states, 1),
            "predictions": torch.stack(self.predictions, 1),
        }

    def save(self) -> None:
        if self.steps:
            write_tensors(self.path, {**self.results(), "rngs": self.rng_states}, steps=str(self.steps))
