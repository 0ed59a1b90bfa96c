"""Why a machine or a network draws what it draws."""

from patchmosaic.explain.belief import Belief, believe, patch_counts
from patchmosaic.explain.consistency import Consistency, consistency, local_consistency
from patchmosaic.explain.mosaic import Fragment, Mosaic, mosaic
from patchmosaic.explain.provenance import Provenance, provenance
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
    "Belief",
    "Consistency",
    "Fragment",
    "Mosaic",
    "Norm",
    "Provenance",
    "Rate",
    "Structures",
    "agreement",
    "believe",
    "consistency",
    "count_structures",
    "effective_width",
    "local_consistency",
    "machine_jacobian",
    "mosaic",
    "network_jacobian",
    "patch_counts",
    "provenance",
    "receptive_field",
    "silhouettes",
    "wilson",
]
