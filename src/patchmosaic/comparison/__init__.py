"""The same noise, the same labels: a trained network beside score machines."""

from patchmosaic.comparison.compare import Comparison, compare

__all__ = ["Comparison", "compare"]
