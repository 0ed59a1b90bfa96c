"""What is explained: one picture of a finished run, and the machine that drew it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from patchmosaic.data import Dataset, DataSettings
from patchmosaic.errors import InputError, refusing
from patchmosaic.generation.run import Config
from patchmosaic.locality import Locality, LocalitySchedule
from patchmosaic.machine import ScoreMachine
from patchmosaic.nets.matching import build_machine
from patchmosaic.records import DAMAGED, RECORD, check_finished, read_record, read_tensors
from patchmosaic.sampling import time_grid
from patchmosaic.schedule import SCHEDULES, ArraySchedule, Schedule


@dataclass(frozen=True, eq=False)
class Subject:
    """A picture and how it was drawn.

    Attributes:
        name: of the machine.
        machine: over ``data``.
        data: the training images.
        seed: of the noise.
        label: the class drawn; None without.
        times: of the reverse flow, first to last.
        schedule: their noise levels.
        solver: that took the steps.
        dtype: of the noise.
        others: pictures of others from the same noise, by name, such as a network's.
    """

    name: str
    machine: ScoreMachine
    data: Dataset
    seed: int
    label: int | None
    times: tuple[float, ...]
    schedule: Schedule
    solver: str
    dtype: torch.dtype
    others: dict[str, Float[Tensor, "1 c h w"]]

    @property
    def caption(self) -> str:
        """The seed, and the class if there is one."""
        if self.label is None:
            return f"seed {self.seed}"
        name = self.data.class_names[self.label]
        return f"seed {self.seed}, {'class ' * name.isdigit()}{name}"


def load_subject(folder: Path, sample: int, machine: str | None, memory_budget: int, device: str) -> Subject:
    """Picture number ``sample`` of a run of ``patchmosaic generate`` or ``patchmosaic compare``.

    Args:
        folder: of the run.
        sample: 0 is the first.
        machine: which one of a comparison; None is the last that was asked for.
        memory_budget: bytes of working memory.
        device: where the machine goes.

    Raises:
        InputError: no such run or sample, or the training images are no longer those of the run.
    """
    if not (folder / RECORD).is_file():
        raise InputError(f"{folder} holds no run: give a folder made by patchmosaic generate or compare")
    record = read_record(folder)
    config = record.get("config", {})
    if not config.get("seeds") or not ("machine" in config or "machines" in config):
        raise InputError(f"{folder} holds no pictures: give a folder made by patchmosaic generate or compare")
    with refusing(folder / RECORD, DAMAGED, AttributeError, IndexError, KeyError, TypeError, ValueError):
        count = len(config["seeds"])
        if not 0 <= sample < count:
            raise InputError(f"{folder} holds samples 0 to {count - 1}: there is no sample {sample}")
        data = _load_data(folder, record)
        if "machines" in config:
            return _of_comparison(folder, record, data, sample, machine, memory_budget, device)
        if machine is not None:
            raise InputError("--machine is for runs of patchmosaic compare, which have several")
        return _of_generation(config, data, sample, memory_budget, device)


def _load_data(folder: Path, record: dict[str, Any]) -> Dataset:
    config = record["config"]
    data = DataSettings.from_record(config).load()
    if data.fingerprint != record["data"]["fingerprint"]:
        raise InputError(
            f"{config['data']} no longer holds the images that {folder} was made from "
            f"(SHA-256 {data.fingerprint[:12]}, then {record['data']['fingerprint'][:12]})"
        )
    return data


def _of_generation(
    config: dict[str, Any], data: Dataset, sample: int, memory_budget: int, device: str
) -> Subject:
    settled: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in config.items()
    }
    try:
        settings = Config(**settled)
    except InputError as error:  # the record's mistake, not the caller's
        raise ValueError(error) from None
    schedule = SCHEDULES[settings.schedule]()
    return Subject(
        settings.machine,
        settings.build(data, "auto", memory_budget, device),
        data,
        settings.seeds[sample],
        _label(settings.labels, sample),
        time_grid(schedule, settings.steps, settings.start),
        schedule,
        settings.solver,
        getattr(torch, settings.dtype),
        {},
    )


def _of_comparison(
    folder: Path,
    record: dict[str, Any],
    data: Dataset,
    sample: int,
    name: str | None,
    memory_budget: int,
    device: str,
) -> Subject:
    config = record["config"]
    name = name or config["machines"][-1]
    if name not in config["machines"]:
        raise InputError(f"--machine must be one of {', '.join(config['machines'])}, not {name!r}")
    described = record["locality"][name]
    locality: Locality = described["windows"]
    if described["alpha_bars"] is not None:
        locality = LocalitySchedule(described["alpha_bars"], described["windows"])
    machine = build_machine(name, locality, data, record["network"]["circular"], memory_budget)
    label = _label(config["labels"], sample)
    if label is not None:
        data.check_labels([label])
    main = config["network_steps"][0]
    drawn = _drawn(folder, f"network_{main}", (len(config["seeds"]), *machine.dictionary.shape))
    schedule = ArraySchedule(record["network"]["alpha_bars"])
    return Subject(
        name,
        machine.to(device),
        data,
        config["seeds"][sample],
        label,
        time_grid(schedule, config["steps"], config["start"]),
        schedule,
        "ddim",
        torch.float32,
        {f"Network, {main} steps": drawn[sample : sample + 1]},
    )


def _drawn(folder: Path, name: str, shape: tuple[int, ...]) -> Float[Tensor, "n c h w"]:
    """The finished pictures of a comparison."""
    check_finished(folder)
    path = folder / "samples.safetensors"
    images = read_tensors(path, [name])[0][name]
    if images.shape != shape or images.dtype != torch.float32 or not bool(images.isfinite().all()):
        raise InputError(f"the pictures in {path} are not those of its run.json: {DAMAGED}")
    return images


def _label(labels: tuple[int, ...] | list[int] | None, sample: int) -> int | None:
    return None if labels is None else labels[sample % len(labels)]
