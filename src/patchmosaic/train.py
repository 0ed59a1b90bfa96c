"""Training a network to predict the noise in pictures (Kamb & Ganguli 2025, appendix C.1)."""

import csv
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from patchmosaic import viz
from patchmosaic.data import Dataset, DataSettings
from patchmosaic.errors import InputError
from patchmosaic.nets import Network, save_network
from patchmosaic.nets.build import NETWORKS, build
from patchmosaic.records import RunFolder, read_tensors, versions, write, write_json, write_tensors
from patchmosaic.sampling import draw_noise, generators, sample
from patchmosaic.schedule import CosineSchedule

_SECONDS_BETWEEN_CHECKPOINTS = 60.0
_PATIENCE = 1000  # steps after which the loss must have fallen
_WINDOW = 100  # steps over which it is averaged for that
_GRID = 16  # pictures drawn now and then
_TRAINING_IN_PRECISION = ("no", "fp16", "bf16")


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides a trained network; the defaults are the paper's.

    Attributes:
        data: the training images.
        network: a name in ``NETWORKS``.
        width: channels inside (of the UNets: at the finest scale); None: the network's default.
        layers: residual convolutions (of the UNets: in each block); None: the network's default.
        padding: "zeros" or "circular".
        conditional: condition on the class.
        epochs: passes over the images.
        steps: number of batches instead of ``epochs``.
        batch: images in a batch.
        lr: learning rate of Adam at the first step.
        decay: factor on the learning rate at every step.
        ema: share of the averaged weights that stays at every step; 0 keeps the last weights instead.
        seed: decides initial weights, batches, times and noise.
        precision: "no", "fp16" or "bf16", as accelerate's mixed precision.
    """

    data: DataSettings = field(default_factory=DataSettings)
    network: str = "resnet"
    width: int | None = None
    layers: int | None = None
    padding: str = "zeros"
    conditional: bool = False
    epochs: int = 300
    steps: int | None = None
    batch: int = 128
    lr: float = 1e-4
    decay: float = 0.999965
    ema: float = 0.0
    seed: int = 0
    precision: str = "no"

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise InputError(f"network must be one of {', '.join(NETWORKS)}, not {self.network!r}")
        if self.precision not in _TRAINING_IN_PRECISION:
            raise InputError(
                f"precision must be one of {', '.join(_TRAINING_IN_PRECISION)}, not {self.precision!r}"
            )
        for name in ("width", "layers", "epochs", "steps", "batch"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InputError(f"{name} must be at least 1, not {value}")
        if not (0 < self.lr < 10 and 0 < self.decay <= 1 and 0 <= self.ema < 1):
            raise InputError("need 0 < lr < 10, 0 < decay <= 1 and 0 <= ema < 1")
        if not 0 <= self.seed < 1 << 31:
            raise InputError("seed must be from 0 to 2^31 - 1")

    def total_steps(self, images: int) -> int:
        """Batches in the whole training."""
        return self.steps or self.epochs * -(-images // self.batch)


class Batches:
    """The batch of every step from the seed and the step alone, so that a resumed training sees the same ones.

    Args:
        data: images and labels.
        settings: what decides the batches.
    """

    def __init__(self, data: Dataset, settings: TrainSettings):
        self.data, self.settings = data, settings
        self.schedule = CosineSchedule()
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    def of(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Noisy images, their noise, time in [0, 1] and labels; each image once in an epoch."""
        size, count = self.settings.batch, len(self.data)
        epoch, place = divmod(step, -(-count // size))
        if epoch != self._epoch:
            shuffle = _generator(self.settings.seed, epoch, 1)
            self._epoch, self._order = epoch, torch.randperm(count, generator=shuffle)
        rows = self._order[place * size : (place + 1) * size]
        rng = _generator(self.settings.seed, step, 0)
        images = _values(self.data.pixels[rows])
        noise = torch.randn(images.shape, generator=rng)
        # One time in each of as many equal parts of [0, 1]: uniform, and the loss of a batch varies less.
        times = (torch.arange(len(rows)) + torch.rand(len(rows), generator=rng)) / len(rows)
        alpha_bar = self.schedule.alpha_bar(times).float().view(-1, 1, 1, 1)
        noisy = alpha_bar.sqrt() * images + (1 - alpha_bar).sqrt() * noise
        labels = None
        if self.settings.conditional and self.data.labels is not None:
            labels = self.data.labels[rows]
        return noisy, noise, times, labels


def _generator(*numbers: int) -> torch.Generator:
    """One for each sequence of numbers; torch's own seeds keep 32 bits only."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))


def _values(pixels: Tensor) -> Float[Tensor, "n c h w"]:
    return pixels.float() / 127.5 - 1 if pixels.dtype == torch.uint8 else pixels


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
        self.files = RunFolder(folder, record, ("loss.png", "loss.csv", "metrics.json"))
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
    def parameters(self) -> int:
        """Numbers that are learnt."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def network(self) -> nn.Module:
        """The network as it would be saved now."""
        return self.average.module if self.average else self.accelerator.unwrap_model(self.model)

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
                self._take(batches)
                say(self.losses[-1])
                if main and self.step % grid_every == 0 and self.step < self.total:
                    self._draw()
                if main and time.monotonic() - saved > _SECONDS_BETWEEN_CHECKPOINTS:
                    self.save()
                    saved = time.monotonic()
            if main:
                self._finish()
        except KeyboardInterrupt:
            if main:
                self.save()
            raise

    def _take(self, batches: Batches) -> None:
        """One step of Adam on this process's share of a batch."""
        noisy, noise, times, labels = batches.of(self.step)
        noisy, noise, times = (self._share(part) for part in (noisy, noise, times))
        labels = None if labels is None else self._share(labels)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * self.settings.decay**self.step
        with self.accelerator.autocast():
            predicted = self.model(noisy, times * 1000 - 1, labels).sample
        loss = (predicted.float() - noise).square().mean()
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
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
        recent = self.losses[-_WINDOW:]
        mean = sum(recent) / len(recent)
        if not mean < 1e4:  # also NaN
            raise InputError(
                f"the loss became {self.losses[-1]} at step {self.step}: use a smaller --lr than {self.settings.lr:g}"
            )
        if self.step == _PATIENCE and mean > 0.95:
            raise InputError(
                f"after {self.step} steps the loss is {mean:.3f} (1 is that of a network that says nothing): "
                "use another --lr, or images in [-1, 1]"
            )

    def save(self) -> None:
        """Keep the state, to go on from."""
        tensors = {f"model.{name}": value for name, value in self._model_state().items()}
        if self.average:
            tensors |= {f"average.{name}": value for name, value in self.average.module.state_dict().items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{name}": value for name, value in moments.items()}
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        write_tensors(self._state, {name: value.cpu() for name, value in tensors.items()})

    def load(self) -> None:
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
        count = min(_GRID, 8 * (network.classes or 2))
        labels = None if network.classes is None else torch.arange(count) % network.classes
        noise = draw_noise(generators(range(count)), network.shape).to(self.accelerator.device)
        images = sample(network, noise, 20, labels=labels).images
        self.model.train()
        title = f"{self.settings.network} trained on {self.data.name}, step {self.step:,} of {self.total:,}"
        subtitle = f"Drawn from noise, seeds 0 to {count - 1}, 20 steps."
        page = viz.grid(images, title, subtitle)
        viz.save_png(page, self.files.path / "samples" / f"{self.step:07d}.png")

    def _finish(self) -> None:
        self._draw()
        folder = self.files.path / "network"
        save_network(self.network(), folder)
        write_json(folder / "run.json", self.files.record)
        viz.curve_png(
            self.losses,
            f"Loss of a {self.settings.network} on {self.data.name}",
            ("step", "mean squared error of the noise"),
            self.files.path / "loss.png",
        )
        write(self.files.path / "loss.csv", lambda path: _write_losses(path, self.losses))
        recent = self.losses[-_WINDOW:]
        metrics = {"steps": self.step, "loss": sum(recent) / len(recent), "parameters": self.parameters}
        write_json(self.files.path / "metrics.json", metrics)
        self.files.close()


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _write_losses(path: Path, losses: list[float]) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["step", "loss"])
        rows.writerows(enumerate(losses, 1))
