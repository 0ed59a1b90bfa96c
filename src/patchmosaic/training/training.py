"""Training a network to predict the noise in pictures (Kamb & Ganguli 2025, appendix C.1)."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from patchmosaic import plots, viz
from patchmosaic.data import Dataset
from patchmosaic.errors import InputError
from patchmosaic.nets import Network, load_network, save_network
from patchmosaic.nets.build import build
from patchmosaic.nets.network import TRAINING_STEPS
from patchmosaic.records import RunFolder, read_tensors, versions, write_csv, write_json, write_tensors
from patchmosaic.sampling import draw_noise, generators, sample
from patchmosaic.training.batches import Batches
from patchmosaic.training.settings import TrainSettings

_SECONDS_BETWEEN_CHECKPOINTS = 60.0
_PATIENCE = 1000  # steps after which the loss must have fallen
_WINDOW = 100  # steps over which it is averaged for that
_GRID = 16  # pictures drawn now and then


@final
class Training:
    """A training, and the folder that holds it.

    Args:
        folder: where results go.
        settings: what decides them.
        data: the loaded training images.
        device: "cpu" or "cuda".
    """

    def __init__(self, folder: Path, settings: TrainSettings, data: Dataset, device: str = "cpu"):
        from accelerate import Accelerator

        self.settings, self.data = settings, data
        if settings.precision == "fp16" and device == "cpu":
            raise InputError("fp16 is for GPUs: on a CPU use --precision bf16 or no")
        classes = None
        if settings.conditional:
            if data.labels is None:
                raise InputError(f"{data.name} has no classes: leave out --conditional")
            classes = len(data.class_names)
        self.total = settings.total_steps(len(data))
        record = {
            "config": asdict(settings),
            "data": {"name": data.name, "fingerprint": data.fingerprint, "shape": list(data.pixels.shape)},
            "work": {"device": device, "threads": torch.get_num_threads()},
            "versions": versions(),
        }
        results = ("samples", "network", "loss.png", "loss.csv", "metrics.json")
        self.files = RunFolder(folder, "train", record, results)
        self.accelerator = Accelerator(mixed_precision=settings.precision, cpu=device == "cpu")
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            model = build(settings, tuple(data.pixels.shape[1:]), classes)
        optimizer = torch.optim.Adam(model.parameters(), settings.lr)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.average = None
        if settings.ema:
            averaging = get_ema_multi_avg_fn(settings.ema)
            self.average = AveragedModel(self.accelerator.unwrap_model(self.model), multi_avg_fn=averaging)
        self.losses: list[float] = []

    @property
    def step(self) -> int:
        """Batches taken."""
        return len(self.losses)

    @property
    def recent_loss(self) -> float:
        """Mean over the last steps."""
        recent = self.losses[-_WINDOW:]
        return sum(recent) / len(recent)

    @property
    def parameters(self) -> int:
        """Numbers that are learnt."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def network(self) -> nn.Module:
        """The network as it would be saved now."""
        return self.average.module if self.average else self.accelerator.unwrap_model(self.model)

    def open(self, resume: bool, overwrite: bool) -> bool:
        """As :meth:`RunFolder.open`, by the first of several processes; then take up the kept state, if any."""
        with self.accelerator.main_process_first():
            first = self.accelerator.is_main_process
            complete = self.files.open(resume, overwrite) if first else self.files.complete
        if complete:
            load_network(self.files.path / "network")  # or say that it is damaged
        else:
            self._load()
        return complete

    def run(self, say: Callable[[float], None], grid_every: int) -> None:
        """Take the steps that remain, then write the results.

        Args:
            say: called after every step with its loss.
            grid_every: steps between two pictures of samples.

        Raises:
            InputError: where the loss is not finite or does not fall.
        """
        batches, saved = Batches(self.data, self.settings), time.monotonic()
        main = self.accelerator.is_main_process
        try:
            while self.step < self.total:
                if main and self.step and self.step % grid_every == 0:
                    self._draw()
                self._take(batches)
                say(self.losses[-1])
                if main and time.monotonic() - saved > _SECONDS_BETWEEN_CHECKPOINTS:
                    self._save()
                    saved = time.monotonic()
            if main:
                self._finish()
            self.accelerator.end_training()
        except KeyboardInterrupt:
            if main:
                self._save()
            raise

    def _take(self, batches: Batches) -> None:
        """One step of Adam on this process's share of a batch."""
        noisy, noise, times, labels = batches.of(self.step)
        noisy, noise, times = (self._share(part) for part in (noisy, noise, times))
        labels = None if labels is None else self._share(labels)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * self.settings.decay**self.step
        with self.accelerator.autocast():
            predicted = self.model(noisy, times * TRAINING_STEPS - 1, labels).sample
        loss = (predicted.float() - noise).square().mean()
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        with _uninterrupted():  # weights, average and losses are of the same step
            self.optimizer.step()
            if self.average:
                self.average.update_parameters(self.accelerator.unwrap_model(self.model))
            self.losses.append(float(self.accelerator.reduce(loss.detach(), "mean")))
            self._check_loss()

    def _share(self, part: Tensor) -> Tensor:
        """This process's rows, on its device."""
        rows = part[self.accelerator.process_index :: self.accelerator.num_processes]
        return rows.to(self.accelerator.device)

    def _check_loss(self) -> None:
        mean = self.recent_loss
        if not mean < 1e4:  # also NaN
            raise InputError(
                f"the loss became {self.losses[-1]} at step {self.step}: use a smaller --lr than {self.settings.lr:g}"
            )
        if self.step == _PATIENCE and mean > 0.95:
            raise InputError(
                f"after {self.step} steps the loss is {mean:.3f} (1 is that of a network that says nothing): "
                "use another --lr, or images in [-1, 1]"
            )

    def _save(self) -> None:
        """Keep the state, to go on from."""
        tensors = {f"model.{name}": value for name, value in self._model_state().items()}
        if self.average:
            tensors |= {f"average.{name}": value for name, value in self.average.module.state_dict().items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{name}": value for name, value in moments.items()}
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        write_tensors(self._state, {name: value.cpu() for name, value in tensors.items()})

    def _load(self) -> None:
        """Go on from the kept state, if there is one."""
        if not self._state.exists():
            return
        tensors = read_tensors(self._state)[0]
        self.accelerator.unwrap_model(self.model).load_state_dict(_part(tensors, "model."))
        if self.average:
            self.average.module.load_state_dict(_part(tensors, "average."))
            self.average.n_averaged += 1
        state = self.optimizer.state_dict()
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _part(tensors, "adam.").items():
            i, what = name.split(".")
            moments.setdefault(int(i), {})[what] = value
        self.optimizer.load_state_dict({**state, "state": moments})
        self.losses = tensors["losses"].tolist()

    @property
    def _state(self) -> Path:
        return self.files.partial / "state.safetensors"

    def _model_state(self) -> dict[str, Tensor]:
        return self.accelerator.unwrap_model(self.model).state_dict()

    def _draw(self) -> None:
        """Pictures from always the same noise."""
        network = Network(self.network())
        labels = None if network.classes is None else torch.arange(_GRID) % network.classes
        noise = draw_noise(generators(range(_GRID)), network.shape).to(self.accelerator.device)
        images = sample(network, noise, 20, labels=labels).images
        self.model.train()
        title = f"{self.settings.network} trained on {self.data.name}, step {self.step:,} of {self.total:,}"
        subtitle = f"Drawn from noise, seeds 0 to {_GRID - 1}, 20 steps."
        page = viz.grid(images, title, subtitle)
        viz.save_png(page, self.files.path / "samples" / f"{self.step:07d}.png")

    def _finish(self) -> None:
        self._draw()
        folder = self.files.path / "network"
        save_network(self.network(), folder)
        write_json(folder / "run.json", self.files.record)
        title = f"Loss of a {self.settings.network} on {self.data.name}"
        page = plots.curve(self.losses, title, ("step", "mean squared error of the noise"))
        plots.save(page, self.files.path / "loss.png")
        write_csv(self.files.path / "loss.csv", ("step", "loss"), enumerate(self.losses, 1))
        metrics = {"steps": self.step, "loss": self.recent_loss, "parameters": self.parameters}
        write_json(self.files.path / "metrics.json", metrics)
        self.files.close()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Put Ctrl-C off until the block is done; it reaches the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        signal.raise_signal(signal.SIGINT)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
