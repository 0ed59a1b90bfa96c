"""How much of an image a network looks at, noise level by noise level."""

from patchmosaic.calibration.calibrate import Calibration, calibrate, candidate_windows

__all__ = ["Calibration", "calibrate", "candidate_windows"]
