"""Why a machine or a network draws what it draws."""

from patchmosaic.explain.rates import Agreement, Rate, agreement, wilson
from patchmosaic.explain.receptive import (
    effective_width,
    machine_jacobian,
    network_jacobian,
    receptive_field,
)
from patchmosaic.explain.structures import Norm, Structures, count_structures, silhouettes

__all__ = [
    "Agreement",
    "Norm",
    "Rate",
    "Structures",
    "agreement",
    "count_structures",
    "effective_width",
    "machine_jacobian",
    "network_jacobian",
    "receptive_field",
    "silhouettes",
    "wilson",
]
