"""Closed-form score machines: what a convolutional diffusion model will draw, and from which training patches."""

from . import data as data
from . import explain as explain
from . import metrics as metrics
from . import presets as presets
from .auditing import Fragment, Report, audit
from .calibration import (
    Calibration,
    PredictedSchedule,
    calibrate,
    candidate_windows,
    predict_locality,
)
from .comparison import Comparison, compare
from .data import Dataset, load_dataset
from .denoiser import Denoiser, FunctionDenoiser
from .errors import InputError
from .explain import (
    Consistency,
    Mosaic,
    Provenance,
    local_consistency,
    mosaic,
    provenance,
)
from .locality import LocalitySchedule
from .machine import ScoreMachine
from .nets import Network, load_network
from .sampling import Sample, Step, draw_noise, generators, reverse_flow, sample
from .schedule import (
    ArraySchedule,
    CosineSchedule,
    ExponentialSchedule,
    LinearSchedule,
    NicholCosineSchedule,
    Schedule,
)

__version__: str

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
    "data",
    "draw_noise",
    "explain",
    "generators",
    "load_dataset",
    "load_network",
    "local_consistency",
    "metrics",
    "mosaic",
    "predict_locality",
    "presets",
    "provenance",
    "reverse_flow",
    "sample",
]
