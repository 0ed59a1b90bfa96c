"""What decides the result of an audit."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from patchmosaic.auditing.audit import HELD_OUT
from patchmosaic.auditing.levels import grey_levels
from patchmosaic.data import DataSettings
from patchmosaic.data.dataset import load_dataset
from patchmosaic.errors import InputError, check_count
from patchmosaic.nets.network import Network, holds_network, load_network
from patchmosaic.records import RECORD, check_finished, made_by, read_record, read_tensors
from patchmosaic.sampling import check_seeds

SAMPLES = "samples.safetensors"


@dataclass(frozen=True)
class Settings(DataSettings):
    """The training images, what is compared with them, and how."""

    images: str = ""
    held_out: str | None = None
    held_out_count: int = HELD_OUT
    window: int | None = None
    seed: int = 0
    count: int = 100
    labels: tuple[int, ...] | None = None
    network_steps: int = 50

    def __post_init__(self) -> None:
        for name in ("held_out_count", "count", "network_steps"):
            check_count(f"--{name.replace('_', '-')}", getattr(self, name))
        check_seeds([self.seed])

    def network(self, device: str) -> Network | None:
        """What draws the pictures, where they are not given."""
        folder = Path(self.images).expanduser()
        return load_network(folder, device) if holds_network(folder) else None

    def pictures(self) -> tuple[Tensor, tuple[str, ...] | None]:
        """The pictures to be audited, as bytes (N, C, H, W), and their names, where they are files."""
        return self._read(self.images)

    def real(self) -> Tensor | None:
        """Held-out pictures, if given."""
        if self.held_out is None:
            return None
        found, _ = self._read(self.held_out)
        some = torch.randperm(len(found), generator=torch.Generator().manual_seed(self.seed))
        return found[some[: self.held_out_count].sort().values]

    def _read(self, source: str) -> tuple[Tensor, tuple[str, ...] | None]:
        """A data set, or what ``patchmosaic generate`` wrote: its run folder or the file in it."""
        path = Path(source).expanduser()
        if (path / RECORD).is_file():
            check_finished(path)
            if made_by(read_record(path)) == "compare":
                raise InputError(
                    f"{source} compares pictures of several: give the network, or a run of patchmosaic generate"
                )
            path = path / SAMPLES
        if path.suffix != ".safetensors":
            found = load_dataset(source, size=self.size, channels=self.channels, split=self.split)
            return grey_levels(found.pixels, f"the pictures of {source}"), found.names
        if not path.is_file():
            raise InputError(f"{str(path)!r} is no file: give the path of a file or folder")
        tensors, _ = read_tensors(path, ["images"])
        return grey_levels(tensors["images"], f"the pictures of {source}"), None
