"""Which training images a command uses: settings that can be recorded and read back."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from patchmosaic.data.dataset import Dataset, load_dataset


@dataclass(frozen=True)
class DataSettings:
    """The arguments of :func:`load_dataset`, as the command line takes them."""

    data: str = "digits"
    size: int | None = None
    channels: int | None = None
    classes: tuple[str, ...] | None = None
    limit: int | None = None
    subset_seed: int | None = None
    split: str = "train"

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> "DataSettings":
        """Those of a ``run.json``, which may hold more beside them; KeyError where it holds fewer."""
        found = {field.name: record[field.name] for field in fields(DataSettings)}
        return DataSettings(**{**found, "classes": found["classes"] and tuple(found["classes"])})

    def load(self) -> Dataset:
        """The training images."""
        return load_dataset(
            self.data,
            size=self.size,
            channels=self.channels,
            classes=self.classes,
            limit=self.limit,
            seed=self.subset_seed,
            split=self.split,
        )
