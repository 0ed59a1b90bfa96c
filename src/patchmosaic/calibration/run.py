"""A calibration that is recorded and can be resumed."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from patchmosaic import plots
from patchmosaic.calibration.calibrate import Calibration, cosines
from patchmosaic.calibration.fields import measure_fields
from patchmosaic.calibration.picture import draw, draw_fields
from patchmosaic.calibration.settings import Settings
from patchmosaic.data import Dataset
from patchmosaic.errors import InputError
from patchmosaic.machine import DEFAULT_MEMORY_BUDGET
from patchmosaic.nets import Network
from patchmosaic.nets.matching import build_machine, check_fit, is_circular
from patchmosaic.records import RunFolder, read_json, read_tensors, versions, write_json, write_tensors
from patchmosaic.sampling import draw_noise, generators, in_turn, reverse_flow


@final
class Run:
    """A calibration and the folder that holds it.

    ``run.json`` is written first and ``calibration.json`` last; in between ``unfinished/`` holds finished batches
    of trajectories.

    Args:
        folder: where; made if missing.
        settings: what decides the result.
        network: loaded as the settings say.
        data: the training images, loaded as the settings say.
        device: where the network is, and the machines go.
        memory_budget: bytes of working memory for each machine.

    Raises:
        InputError: if network, data and settings do not fit together; nothing is written then.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        network: Network,
        data: Dataset,
        device: str = "cpu",
        memory_budget: int = DEFAULT_MEMORY_BUDGET,
    ):
        check_fit(network, data)
        self.settings, self.network, self.data, self.device = settings, network, data, device
        self.machines = {
            name: build_machine(name, settings.windows[0], data, is_circular(network), memory_budget).to(
                device
            )
            for name in settings.machines
        }
        data.check_labels(settings.labels)
        self.times = network.schedule.times(settings.steps)
        noise, labels = self._inputs(slice(0, 1))
        network.denoise(noise, network.schedule.alpha_bar(1.0), labels)  # what cannot work fails here
        fields = ("receptive.json", "receptive.png") if settings.receptive_fields else ()
        windows = tuple(f"{name}.json" for name in settings.machines)
        self.files = RunFolder(
            folder, "calibrate", self._record(), (*windows, *fields, "calibration.png", "calibration.json")
        )

    def _record(self) -> dict[str, Any]:
        """For ``run.json``."""
        return {
            "config": asdict(self.settings),
            "network": {"fingerprint": self.network.fingerprint, "shape": self.network.shape},
            "data": {
                "name": self.data.name,
                "fingerprint": self.data.fingerprint,
                "shape": list(self.data.pixels.shape),
            },
            "work": {"device": torch.device(self.device).type, "threads": torch.get_num_threads()},
            "versions": versions(),
        }

    def measure(self) -> dict[str, Calibration]:
        """Follow every trajectory that was not followed yet, and write the results."""
        from tqdm import tqdm

        count, steps = len(self.settings.seeds), self.settings.steps
        batches = list(self.files.batches(count, self.settings.batch))
        with tqdm(total=count * steps, unit="step", desc="calibrating", disable=None) as bar:
            for path, rows in batches:
                if path.exists():
                    bar.update((rows.stop - rows.start) * steps)
                else:
                    write_tensors(path, self._follow(rows, bar))
        names = [*self.machines, *["states"] * self.settings.receptive_fields]
        parts = [read_tensors(path, names)[0] for path, _ in batches]
        alpha_bars = tuple(self.network.schedule.alpha_bar(t) for t in reversed(self.times))
        found = {
            name: Calibration(
                alpha_bars, self.settings.windows, torch.cat([part[name] for part in parts], dim=1)
            )
            for name in self.machines
        }
        if self.settings.receptive_fields:
            self._write_fields(found, torch.cat([part["states"] for part in parts], dim=1).to(self.device))
        self._write(found)
        return found

    def _write_fields(self, found: dict[str, Calibration], states: Tensor) -> None:
        from tqdm import tqdm

        labels = self._labels(slice(0, len(self.settings.seeds)))
        with tqdm(total=len(states), unit="level", desc="receptive fields", disable=None) as bar:
            fields = measure_fields(self.network, self.machines, found, states, labels, bar.update)
        write_json(self.files.path / "receptive.json", fields.describe())
        page = draw_fields(fields, found, tuple(reversed(self.times)), self.data.name)
        plots.save(page, self.files.path / "receptive.png")

    def _follow(self, rows: slice, bar: Any) -> dict[str, Tensor]:
        """Cosines of each machine along some trajectories, (steps, batch, windows), lowest noise first.

        With ``states`` (steps, batch, C, H, W) where receptive fields are wanted.
        """
        noise, labels = self._inputs(rows)
        found, states = [], []
        for step in reverse_flow(self.network, noise, self.times, self.network.schedule, labels):
            found.append(cosines(step, self.machines, self.settings.windows, labels))
            states.append(step.state.cpu())
            bar.update(len(noise))
        kept = {name: torch.stack([step[name] for step in reversed(found)]) for name in self.machines}
        return {**kept, "states": torch.stack(states[::-1])} if self.settings.receptive_fields else kept

    def _write(self, found: dict[str, Calibration]) -> None:
        origin = {
            "network": self.network.fingerprint,
            "data": self.data.fingerprint,
            "trajectories": len(self.settings.seeds),
        }
        described = {name: {**describe(calibration), **origin} for name, calibration in found.items()}
        for name, content in described.items():
            write_json(self.files.path / f"{name}.json", content)
        times = tuple(reversed(self.times))
        plots.save(draw(found, times, self.data.name), self.files.path / "calibration.png")
        details = {
            name: {
                "best": calibration.best.tolist(),
                "mean_cosines": calibration.cosines.mean(1).tolist(),
                **described[name],
            }
            for name, calibration in found.items()
        }
        write_json(
            self.files.path / "calibration.json",
            {"times": times, "candidates": self.settings.windows, "machines": details},
        )
        self.files.close()

    def save_with_network(self) -> list[Path]:
        """Copy the windows to where :meth:`Network.scales` finds them; returns the files written."""
        folder = self.network.folder
        if folder is None:
            raise InputError("this network was not loaded from a folder")
        written = [folder / "scales" / f"{name}.json" for name in self.machines]
        for path in written:
            write_json(path, read_json(self.files.path / path.name))
        return written

    def _inputs(self, rows: slice) -> tuple[Tensor, Tensor | None]:
        """Noise and labels of some trajectories, on the device."""
        noise = draw_noise(generators(self.settings.seeds[rows]), self.network.shape).to(self.device)
        return noise, self._labels(rows)

    def _labels(self, rows: slice) -> Tensor | None:
        labels = in_turn(self.settings.labels, len(self.settings.seeds))
        return None if labels is None else labels[rows].to(self.device)


def describe(calibration: Calibration) -> dict[str, Any]:
    """What ``LocalitySchedule.load`` reads, and how sure it is."""
    return {
        "alpha_bars": calibration.alpha_bars,
        "windows": calibration.schedule.windows,
        "quartiles": list(zip(*calibration.quartiles, strict=True)),
        "cosine": calibration.cosine.tolist(),
    }
