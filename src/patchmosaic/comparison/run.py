"""A comparison that is recorded and can be resumed."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from patchmosaic.comparison.compare import Comparison, Flow, machine_flows, network_flows
from patchmosaic.comparison.settings import RULE_OF_THUMB, Settings, describe, find_locality
from patchmosaic.data import Dataset
from patchmosaic.machine import DEFAULT_MEMORY_BUDGET
from patchmosaic.nets import Network
from patchmosaic.nets.matching import build_machine, check_fit, is_circular
from patchmosaic.records import RunFolder, read_tensors, versions, write_tensors
from patchmosaic.sampling import draw_noise, generators, in_turn

RESULTS = ("samples.safetensors", "per_seed.csv", "pairs.png", "scatter.png", "report.html", "summary.json")


@final
class Run:
    """A comparison and the folder that holds it.

    ``run.json`` is written first and ``summary.json`` last; in between ``unfinished/`` holds finished batches.

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
        size, circular = min(network.shape[1:]), is_circular(network)
        self.localities = {name: find_locality(settings, network, name, size) for name in settings.machines}
        machines = {
            name: build_machine(name, locality, data, circular, memory_budget).to(device)
            for name, (locality, _) in self.localities.items()
        }
        data.check_labels(settings.labels)
        reference = network_flows(network, settings.network_steps, network.schedule)
        self.flows: dict[str, Flow] = {
            **{f"network_{steps}": flow for steps, flow in reference.items()},
            **machine_flows(machines, settings.steps, settings.start, network.schedule),
        }
        noise, labels = self._inputs(slice(0, 1))
        network.denoise(noise, network.schedule.alpha_bar(1.0), labels)  # what cannot work fails here
        self.files = RunFolder(folder, "compare", self._record(), RESULTS)

    def _record(self) -> dict[str, Any]:
        """For ``run.json``."""
        pixels = self.data.pixels
        return {
            "config": asdict(self.settings),
            "network": {
                "fingerprint": self.network.fingerprint,
                "shape": self.network.shape,
                "classes": self.network.classes,
                "circular": is_circular(self.network),
                "alpha_bars": [
                    self.network.schedule.alpha_bar(time)
                    for time in reversed(self.network.schedule.times(self.settings.steps))
                ],
            },
            "locality": {
                name: {**describe(locality), "source": source}
                for name, (locality, source) in self.localities.items()
            },
            "data": {
                "name": self.data.name,
                "fingerprint": self.data.fingerprint,
                "shape": list(pixels.shape),
            },
            "work": {"device": torch.device(self.device).type, "threads": torch.get_num_threads()},
            "versions": versions(),
        }

    @property
    def labels(self) -> Tensor | None:
        """One class per seed: those of the settings in turn."""
        return in_turn(self.settings.labels, len(self.settings.seeds))

    @property
    def names(self) -> tuple[str, str]:
        """The network and theory in words; only a network whose record names the very images was trained on them."""
        if self.network.trained_on(self.data):
            return f"a network trained on {self.data.name}", "theory"
        return "a network", f"theory on {self.data.name}"

    def describe(self) -> str:
        """Who draws from what, in words."""
        guessed = [name for name, (_, source) in self.localities.items() if source == RULE_OF_THUMB]
        remark = f"\nno windows calibrated on this network for {', '.join(guessed)}: using a rule of thumb"
        return (
            f"{', '.join(self.localities)} over {len(self.data):,} images of {self.data.name}, "
            f"beside the network in {' and '.join(map(str, self.settings.network_steps))} steps"
        ) + (remark if guessed else "")

    def caption(self, row: int) -> tuple[str, ...]:
        """A seed, and its class if it has one, in words."""
        seed = f"seed {self.settings.seeds[row]}"
        if self.labels is None:
            return (seed,)
        name = self.data.class_names[int(self.labels[row])]
        return (seed, f"class {name}" if name.isdigit() else name)

    def draw(self) -> Comparison:
        """Draw every picture that is not drawn yet, and put all of them together."""
        from tqdm import tqdm

        total = len(self.settings.seeds) * sum(len(flow.times) for flow in self.flows.values())
        with tqdm(total=total, unit="step", desc="drawing", disable=None) as bar:
            for who, flow in self.flows.items():
                bar.set_postfix_str(who)
                for path, rows in self._batches(who):
                    noise, labels = self._inputs(rows)
                    if path.exists():
                        bar.update(len(noise) * len(flow.times))
                    else:
                        images = flow.draw(noise, labels, lambda step: bar.update(len(step.state)))
                        write_tensors(path, {"images": images.cpu()})
        drawn = {who: self._read(who) for who in self.flows}
        return Comparison(
            {steps: drawn[f"network_{steps}"] for steps in self.settings.network_steps},
            {name: drawn[name] for name in self.settings.machines},
            self.settings.steps,
        )

    def _read(self, who: str) -> Tensor:
        return torch.cat([read_tensors(path, ["images"])[0]["images"] for path, _ in self._batches(who)])

    def _inputs(self, rows: slice) -> tuple[Tensor, Tensor | None]:
        """Noise and labels of some seeds, on the device."""
        c, h, w = self.data.pixels.shape[1:]
        noise = draw_noise(generators(self.settings.seeds[rows]), (c, h, w))
        labels = None if self.labels is None else self.labels[rows].to(self.device)
        return noise.to(self.device), labels

    def _batches(self, who: str) -> Iterator[tuple[Path, slice]]:
        return self.files.batches(len(self.settings.seeds), self.settings.batch, f"{who}-")
