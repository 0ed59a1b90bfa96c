"""Training images: loading, selecting and resizing them."""

from patchmosaic.data.dataset import Dataset, load_dataset

__all__ = ["Dataset", "load_dataset"]
