"""Closed-form score machines: what a convolutional diffusion model will draw, and from which training patches."""

from patchmosaic import presets
from patchmosaic.auditing import Fragment, Report, audit
from patchmosaic.calibration import (
    Calibration,
    PredictedSchedule,
    calibrate,
    candidate_windows,
    predict_locality,
)
from patchmosaic.comparison import Comparison, compare
from patchmosaic.data import Dataset, load_dataset
from patchmosaic.denoiser import Denoiser, FunctionDenoiser
from patchmosaic.errors import InputError
from patchmosaic.explain import (
    Consistency,
    Mosaic,
    Provenance,
    local_consistency,
    mosaic,
    provenance,
)
from patchmosaic.locality import LocalitySchedule
from patchmosaic.machine import ScoreMachine
from patchmosaic.nets import Network, load_network
from patchmosaic.sampling import Sample, Step, draw_noise, generators, reverse_flow, sample
from patchmosaic.schedule import (
    ArraySchedule,
    CosineSchedule,
    ExponentialSchedule,
    LinearSchedule,
    NicholCosineSchedule,
    Schedule,
)

__version__ = "0.1.0"

__all__ = [
    "ArraySchedule",
    "Calibration",
    "Comparison",
    "Consistency",
    "CosineSchedule",
    "Dataset",
    "Denoiser",
    "ExponentialSchedule",
    "Fragment",
    "FunctionDenoiser",
    "InputError",
    "LinearSchedule",
    "LocalitySchedule",
    "Mosaic",
    "Network",
    "NicholCosineSchedule",
    "PredictedSchedule",
    "Provenance",
    "Report",
    "Sample",
    "Schedule",
    "ScoreMachine",
    "Step",
    "audit",
    "calibrate",
    "candidate_windows",
    "compare",
    "draw_noise",
    "generators",
    "load_dataset",
    "load_network",
    "local_consistency",
    "mosaic",
    "predict_locality",
    "presets",
    "provenance",
    "reverse_flow",
    "sample",
]
