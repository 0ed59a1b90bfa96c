"""Receptive fields beside calibrated windows (Kamb & Ganguli 2025, fig. 4a)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchmosaic.calibration.calibrate import Calibration
from patchmosaic.explain import effective_width, machine_jacobian, network_jacobian, receptive_field
from patchmosaic.explain.receptive import rank_correlation
from patchmosaic.machine import ScoreMachine
from patchmosaic.nets import Network

NETWORK = "network"


@dataclass(frozen=True, eq=False)
class Fields:
    """What estimates of the centre pixel depend on, at each noise level.

    Attributes:
        fields: of the network, and of each machine in its calibrated windows, lowest noise first; see
            :func:`patchmosaic.explain.receptive_field`.
        rank_correlations: Spearman's, of a machine's calibrated windows and the network's effective widths.
    """

    fields: dict[str, Float[Tensor, "steps h w"]]
    rank_correlations: dict[str, float]

    def widths(self, name: str) -> list[float]:
        """Effective widths in pixels, lowest noise first; NaN where nothing is looked at."""
        return [effective_width(field) for field in self.fields[name]]

    def describe(self) -> dict[str, Any]:
        """For a JSON; None for NaN."""
        return {
            "fields": {name: field.tolist() for name, field in self.fields.items()},
            "widths": {name: [_number(width) for width in self.widths(name)] for name in self.fields},
            "rank_correlations": {name: _number(r) for name, r in self.rank_correlations.items()},
        }


def measure_fields(
    network: Network,
    machines: Mapping[str, ScoreMachine],
    calibrations: Mapping[str, Calibration],
    states: Float[Tensor, "steps b c h w"],
    labels: Int[Tensor, " b"] | None = None,
    done: Callable[[], object] = lambda: None,
) -> Fields:
    """Receptive fields of a network and of calibrated machines.

    Args:
        network: whose trajectories were followed.
        machines: by name.
        calibrations: of these machines.
        states: noisy images of the trajectories at the calibrated noise levels, lowest noise first.
        labels: one class per trajectory, or None.
        done: called after each noise level.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in (NETWORK, *calibrations)}
    alpha_bars = next(iter(calibrations.values())).alpha_bars
    for i, (x, alpha_bar) in enumerate(zip(states, alpha_bars, strict=True)):
        found[NETWORK].append(receptive_field(network_jacobian(network, x, alpha_bar, labels)))
        for name, calibration in calibrations.items():
            window = calibration.schedule.windows[i]
            jacobian = machine_jacobian(machines[name], x, alpha_bar, window, labels)
            found[name].append(receptive_field(jacobian))
        done()
    widths = torch.tensor([effective_width(field) for field in found[NETWORK]])
    correlations = {
        name: rank_correlation(torch.tensor(calibration.schedule.windows), widths)
        for name, calibration in calibrations.items()
    }
    return Fields({name: torch.stack(fields) for name, fields in found.items()}, correlations)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
