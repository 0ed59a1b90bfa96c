"""Training images: loading, selecting and resizing them."""

from patchmosaic.data.dataset import Dataset, load_dataset
from patchmosaic.data.settings import DataSettings

__all__ = ["DataSettings", "Dataset", "load_dataset"]
