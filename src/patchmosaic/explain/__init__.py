"""Why a machine or a network draws what it draws."""

from patchmosaic.explain.receptive import (
    effective_width,
    machine_jacobian,
    network_jacobian,
    receptive_field,
)

__all__ = ["effective_width", "machine_jacobian", "network_jacobian", "receptive_field"]
