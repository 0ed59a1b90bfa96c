"""Pictures of a network and of machines from the same noise, and how alike they are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from patchmosaic.denoiser import Denoiser
from patchmosaic.errors import InputError
from patchmosaic.metrics import measure, summary
from patchmosaic.sampling import Step, sample, schedule_of, time_grid
from patchmosaic.schedule import Schedule

NETWORK_STEPS = (150, 20)
IDEAL = "is"


@dataclass(frozen=True)
class Flow:
    """A denoiser, and the reverse flow that draws with it."""

    denoiser: Denoiser
    steps: int
    schedule: Schedule
    start: str = "aligned"

    @property
    def times(self) -> tuple[float, ...]:
        """Where it evaluates the denoiser, first to last."""
        return time_grid(self.schedule, self.steps, self.start)

    def draw(
        self,
        noise: Float[Tensor, "b c h w"],
        labels: Int[Tensor, " b"] | None = None,
        callback: Callable[[Step], None] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """The pictures that it makes of unit noise."""
        drawn = sample(
            self.denoiser, noise, self.steps, self.schedule, labels, start=self.start, callback=callback
        )
        return drawn.images


@dataclass(frozen=True, eq=False)
class Comparison:
    """Pictures from the same noise, and how alike they are.

    Attributes:
        network: the network's pictures (B, C, H, W) by its number of steps; the first is the main one.
        machines: each machine's pictures, as many, by name; "is" is what the others are held against.
        steps: the machines' number of steps.
    """

    network: Mapping[int, Float[Tensor, "b c h w"]] = field(repr=False)
    machines: Mapping[str, Float[Tensor, "b c h w"]] = field(repr=False)
    steps: int

    @property
    def main(self) -> int:
        """The network's first number of steps."""
        return next(iter(self.network))

    @cached_property
    def metrics(self) -> dict[int, dict[str, dict[str, Float[Tensor, " b"]]]]:
        """``metrics[network_steps][machine][name]``, for the names in :data:`patchmosaic.metrics.METRICS`."""
        return {
            steps: {name: measure(reference, images) for name, images in self.machines.items()}
            for steps, reference in self.network.items()
        }

    @property
    def best(self) -> str | None:
        """The machine, other than "is", of the largest median r with the network's main pictures."""
        found = self.metrics[self.main]
        others = [name for name in found if name != IDEAL]
        return max(others, key=lambda name: summary(found[name]["r"])["median"]) if others else None

    def beats_is(self, network_steps: int, machine: str) -> float | None:
        """The share of seeds whose r is larger than that of "is"; None for "is" and where it was not asked."""
        found = self.metrics[network_steps]
        if machine == IDEAL or IDEAL not in found:
            return None
        return float((found[machine]["r"] > found[IDEAL]["r"]).double().mean())

    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` holds: for each machine r, r2 and R2 over seeds, and how often it beats IS."""

        def machines(steps: int) -> dict[str, Any]:
            return {
                name: {
                    **{metric: summary(values[metric]) for metric in ("r", "r2", "R2")},
                    "beats_is": self.beats_is(steps, name),
                }
                for name, values in self.metrics[steps].items()
            }

        return {
            "seeds": len(self.network[self.main]),
            "network_steps": self.main,
            "theory_steps": self.steps,
            "machines": machines(self.main),
            "also": [
                {"network_steps": steps, "machines": machines(steps)}
                for steps in self.network
                if steps != self.main
            ],
        }


def percent(share: float | None) -> str:
    """97.5 %, or a dash."""
    return "–" if share is None else f"{100 * share:.3g} %"


def network_flows(network: Denoiser, steps: Sequence[int], schedule: Schedule) -> dict[int, Flow]:
    """One flow for each number of steps."""
    return {count: Flow(network, count, schedule) for count in steps}


def machine_flows(
    machines: Mapping[str, Denoiser], steps: int, start: str, schedule: Schedule
) -> dict[str, Flow]:
    """One flow for each machine, on the network's schedule."""
    return {name: Flow(machine, steps, schedule, start) for name, machine in machines.items()}


def compare(
    network: Denoiser,
    machines: Mapping[str, Denoiser],
    noise: Float[Tensor, "b c h w"],
    labels: Int[Tensor, " b"] | None = None,
    *,
    network_steps: Sequence[int] = NETWORK_STEPS,
    steps: int = 20,
    start: str = "aligned",
    schedule: Schedule | None = None,
) -> Comparison:
    """Let a network and machines draw from the same noise (Kamb & Ganguli 2025, section 5).

    All are drawn on one noise schedule: the difference of two would count as one between network and theory.

    Args:
        network: the reference: a trained network, or any denoiser.
        machines: what is to predict it, by name; call the ideal machine "is" to hold the others against it.
        noise: unit normal (B, C, H, W), as from :func:`patchmosaic.draw_noise`.
        labels: (B,) classes for all of them, or None.
        network_steps: the network's numbers of steps, the main one first.
        steps: the machines' number of steps.
        start: where the machines begin, see :func:`patchmosaic.sampling.time_grid`.
        schedule: the noise levels of all; None: the network's ``schedule``, or the paper's cosine where it has none.

    Raises:
        InputError: no machine or number of steps, or what the denoisers cannot use.
    """
    if not machines or not network_steps:
        raise InputError("a comparison needs at least one machine and one number of network steps")
    schedule = schedule or schedule_of(network)
    reference = network_flows(network, network_steps, schedule)
    theory = machine_flows(machines, steps, start, schedule)
    return Comparison(
        {count: flow.draw(noise, labels) for count, flow in reference.items()},
        {name: flow.draw(noise, labels) for name, flow in theory.items()},
        steps,
    )
