"""Training a network to predict the noise in pictures (Kamb & Ganguli 2025, appendix C.1)."""

from patchmosaic.training.batches import Batches
from patchmosaic.training.settings import TrainSettings
from patchmosaic.training.training import Training

__all__ = ["Batches", "TrainSettings", "Training"]
