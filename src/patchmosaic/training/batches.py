"""The batch of every step."""

import numpy as np
import torch
from torch import Tensor

from patchmosaic.data import Dataset
from patchmosaic.data.pixels import as_floats
from patchmosaic.schedule import CosineSchedule
from patchmosaic.training.settings import TrainSettings


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
        images = as_floats(self.data.pixels[rows])
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
