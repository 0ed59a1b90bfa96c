"""The pictures of a trained network, drawn to be audited."""

from typing import final

import torch
from jaxtyping import UInt8
from torch import Tensor

from patchmosaic.auditing.levels import grey_levels
from patchmosaic.auditing.settings import Settings
from patchmosaic.data import Dataset
from patchmosaic.nets import Network
from patchmosaic.nets.matching import check_fit, labels_in_turn
from patchmosaic.records import RunFolder, read_tensors, write_tensors
from patchmosaic.sampling import draw_noise, generators, in_turn, sample

_AT_ONCE = 16


@final
class Drawing:
    """What a network draws from ``settings.count`` seeds, its classes in turn.

    Args:
        network: on ``device``.
        settings: how many pictures, from which seeds, in how many steps, of which classes.
        data: the training images.
        device: where it draws.

    Raises:
        InputError: if network, images and classes do not fit together.
    """

    def __init__(self, network: Network, settings: Settings, data: Dataset, device: str):
        check_fit(network, data)
        self.network, self.device, self.steps = network, device, settings.network_steps
        self.seeds = range(settings.seed, settings.seed + settings.count)
        self.labels = in_turn(labels_in_turn(network, data, settings.labels), settings.count)

    def draw(self, files: RunFolder) -> UInt8[Tensor, "n c h w"]:
        """Every picture as bytes; finished batches are kept in ``files`` and not drawn again."""
        from tqdm import tqdm

        parts = []
        with tqdm(total=len(self.seeds), unit="picture", desc="drawing", disable=None) as bar:
            for path, rows in files.batches(len(self.seeds), _AT_ONCE, "drawn-"):
                if not path.exists():
                    write_tensors(path, {"images": self._batch(rows)})
                parts.append(read_tensors(path)[0]["images"])
                bar.update(len(parts[-1]))
        return torch.cat(parts)

    def _batch(self, rows: slice) -> Tensor:
        noise = draw_noise(generators(self.seeds[rows]), self.network.shape).to(self.device)
        labels = None if self.labels is None else self.labels[rows].to(self.device)
        drawn = sample(self.network, noise, self.steps, self.network.schedule, labels)
        return grey_levels(drawn.images.clamp(-1, 1), "the pictures of the network")
