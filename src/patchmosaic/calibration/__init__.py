"""How much of an image to look at, noise level by noise level: as a network does, or from data alone."""

from patchmosaic.calibration.calibrate import Calibration, calibrate, candidate_windows
from patchmosaic.calibration.predict import PredictedSchedule, predict_locality

__all__ = ["Calibration", "PredictedSchedule", "calibrate", "candidate_windows", "predict_locality"]
