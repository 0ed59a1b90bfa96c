"""What a view shows, computed by the library: flows, where their pixels come from, and a network's picture."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple, final

from jaxtyping import Float
from torch import Tensor

from patchmosaic import presets
from patchmosaic.cache import Cache
from patchmosaic.data import Dataset
from patchmosaic.errors import InputError
from patchmosaic.explain import Provenance, patch_counts, provenance
from patchmosaic.explorer.flow import SOURCES, Flow
from patchmosaic.explorer.uploads import decode_start
from patchmosaic.explorer.view import View
from patchmosaic.locality import Locality, LocalitySchedule, check_window, window_at
from patchmosaic.machine import ScoreMachine
from patchmosaic.nets import Network
from patchmosaic.nets.matching import default_machines
from patchmosaic.sampling import draw_noise, generators, time_grid
from patchmosaic.schedule import CosineSchedule, Schedule
from patchmosaic.words import counted

TRACED_AT_ONCE = 3e8  # pairs of pixel and patch in a flow, up to which every step of it is traced
_TRACED_WHOLE = 3e7  # pairs in a step, up to which tracing all pixels is as quick as tracing one
_MOST_PAIRS = 1e13  # in a flow: hours
_DIAL = (3, 5, 7, 9, 13, 17, 25, 33, 49, 65)
_MEMORY = 1 << 28
_LEAST = (
    1 << 20
)  # bytes that a machine or a flow counts beside its numbers: a link's picture, and that it is there
_DIGITS = 9


class Dialled(NamedTuple):
    """One picture of the dial."""

    locality: str  # "whole" for the whole image
    flow: Flow
    machine: ScoreMachine


@final
class Studio:
    """Training images, a network if there is one, and what was computed lately.

    Args:
        data: the training images.
        network: draws images of the same shape, on the CPU, and machines on its noise schedule; or None.
        memory: bytes that flows may take, and working memory of each machine.
    """

    def __init__(self, data: Dataset, network: Network | None = None, memory: int = _MEMORY):
        self.data, self.network, self._memory = data, network, memory
        channels, height, width = data.pixels.shape[1:]
        self.shape: tuple[int, int, int] = (channels, height, width)
        self._machines: Cache[ScoreMachine] = Cache(
            memory, lambda machine: _LEAST + machine.dictionary.nbytes
        )
        self._flows: Cache[Flow] = Cache(memory, lambda flow: _LEAST + flow.nbytes)
        self.schedule: Schedule = CosineSchedule() if network is None else network.schedule

    @property
    def largest_window(self) -> int:
        """From any pixel it sees the whole image."""
        return 2 * max(self.shape[1:]) - 1

    def auto(self, machine: str) -> LocalitySchedule:
        """The windows of a machine that is not told which."""
        calibrated = None if self.network is None else self.network.scales(machine)
        return calibrated or presets.rule_of_thumb(min(self.shape[1:]))

    def locality(self, view: View) -> Locality:
        """What a pixel sees.

        Raises:
            InputError: a name that is not known, or a window that is even or larger than there is to see.
        """
        if view.machine not in presets.LOCAL_MACHINES:
            return None
        if view.locality == "auto":
            return self.auto(view.machine)
        if view.locality in presets.PUBLISHED_SCALES:
            return presets.published_scales(view.locality)
        if not view.locality.isdecimal() or len(view.locality) > _DIGITS:
            known = ", ".join(presets.PUBLISHED_SCALES)
            raise InputError(
                f"locality must be auto, an odd number or one of {known}, not {view.locality[:40]!r}"
            )
        window = check_window(int(view.locality))
        if window > self.largest_window:
            raise InputError(
                f"a window of {window} is larger than the image: {self.largest_window} sees all of it from any pixel"
            )
        return window

    def machine(self, view: View) -> ScoreMachine:
        """The machine of a view."""

        def make() -> ScoreMachine:
            options: dict[str, Locality | str] = {"padding": view.padding} if view.machine == "ls" else {}
            if locality is not None:
                options["locality"] = locality
            return presets.MACHINES[view.machine](
                self.data.pixels, labels=self.data.labels, memory_budget=self._memory, **options
            )

        locality = self.locality(view)
        padding = view.padding if view.machine == "ls" else ""
        return self._machines.get((view.machine, view.locality if locality else "", padding), make)

    def flow(self, view: View) -> Flow:
        """The flow of a view, as far as it was taken.

        Raises:
            InputError: a class that is not there, a start that is no picture, or more work than hours can do.
        """
        machine = self.machine(view)
        return self._flow(view, machine, machine)

    def _flow(self, view: View, denoiser: ScoreMachine | Network, machine: ScoreMachine) -> Flow:
        if view.label is not None:
            self.data.check_labels([view.label])
        times = time_grid(self.schedule, view.steps)
        if view.start:
            times = tuple(time for time in times if time <= view.level + 1e-9)
            if not times:
                raise InputError(
                    f"with {counted(view.steps, 'step')} none is at or below t = {view.level:.2f}: "
                    "take more steps or a higher t"
                )
        if isinstance(denoiser, ScoreMachine):
            work = sum(self.pairs(machine, self.schedule.alpha_bar(time), view.label) for time in times)
            if work > _MOST_PAIRS:
                raise InputError(
                    "that would take many hours: start patchmosaic explore with a smaller --limit"
                )
        if isinstance(denoiser, ScoreMachine):
            name: object = view.flow
        else:
            name = "network", replace(view, machine="is", locality=View.locality).flow
        return self._flows.get(
            name, lambda: Flow(denoiser, self._begin(view, times[0]), times, self.schedule, view.label)
        )

    def _begin(self, view: View, time: float) -> Float[Tensor, "1 c h w"]:
        """Noise, or the view's picture with as much noise as there is at a time."""
        noise = draw_noise(generators([view.seed]), self.shape)
        if not view.start:
            return noise
        alpha_bar = self.schedule.alpha_bar(time)
        return alpha_bar**0.5 * decode_start(view.start, self.shape) + (1 - alpha_bar) ** 0.5 * noise

    def pairs(self, machine: ScoreMachine, alpha_bar: float, label: int | None) -> float:
        """Pairs of pixel and patch in a step."""
        return float(patch_counts(machine, alpha_bar, label).sum())

    def patches(self, machine: ScoreMachine, alpha_bar: float, label: int | None) -> int:
        """The most patches that may stand in for a pixel."""
        return int(patch_counts(machine, alpha_bar, label).max())

    def work(self, view: View) -> float:
        """Pairs of pixel and patch in a whole flow."""
        flow, machine = self.flow(view), self.machine(view)
        return sum(self.pairs(machine, flow.schedule.alpha_bar(time), view.label) for time in flow.times)

    def traces_every_step(self, view: View) -> bool:
        """Whether that takes seconds at most."""
        return self.work(view) <= TRACED_AT_ONCE

    def step(self, view: View, flow: Flow) -> int:
        """The step that a view looks at.

        Raises:
            InputError: a step that the flow does not have.
        """
        if view.step is None:
            return len(flow.times) - 1
        if not 0 <= view.step < len(flow.times):
            raise InputError(f"step must be 0 to {len(flow.times) - 1}, not {view.step}")
        return view.step

    def believed(self, view: View, flow: Flow, other: View | None = None) -> tuple[Provenance, ScoreMachine]:
        """Where the view's pixel comes from (H = W = 1), and the machine that says so.

        Args:
            view: with a pixel.
            flow: the view's; every step up to its own is taken.
            other: a view whose machine is asked about the same noisy picture; None: the view's own.
        """
        if view.row is None or view.col is None:
            raise InputError("choose a pixel: give row and col")
        machine = self.machine(other or view)
        number = self.step(view, flow)
        step = flow.steps[number]
        height, width = self.shape[1:]
        inside = 0 <= view.row < height and 0 <= view.col < width
        if (
            inside
            and other is None
            and (flow.is_traced(number) or self.pairs(machine, step.alpha_bar, view.label) <= _TRACED_WHOLE)
        ):
            return _at(flow.trace(machine, number), view.row, view.col), machine
        pixel = view.row, view.col
        return provenance(machine, step.state, step.alpha_bar, SOURCES, view.label, pixel), machine

    def second(self, view: View) -> View:
        """The view with the machine that stands beside it, which is not told what to see."""
        machine = view.second or self.beside(view.machine)
        return replace(view, machine=machine, locality="auto", padding="zeros")

    def beside(self, machine: str) -> str:
        """The machine that stands beside one where none is chosen."""
        if machine != "is":
            return "is"
        return View.machine if self.network is None else default_machines(self.network)[-1]

    def dial(self, view: View) -> Iterator[Dialled]:
        """The same noise for growing windows, and at last for the whole image; flows are yet to be taken."""
        machine = view.machine if view.machine in presets.LOCAL_MACHINES else "bbels"
        windows = [window for window in _DIAL if window < self.largest_window]
        for locality in [str(window) for window in windows] + ["whole"]:
            one = (
                replace(view, machine="is")
                if locality == "whole"
                else replace(view, machine=machine, locality=locality)
            )
            yield Dialled(locality, self.flow(one), self.machine(one))

    def network_flow(self, view: View) -> Flow:
        """What the network makes of the same noise.

        Raises:
            InputError: no network, or a class where it has none, and the other way round.
        """
        network = self.network
        if network is None:
            raise InputError("there is no network: start patchmosaic explore with --network FOLDER")
        if (network.classes is None) != (view.label is None):
            raise InputError(
                "The network does not draw by class: choose all classes under Class"
                if network.classes is None
                else "The network draws one class at a time: choose one under Class"
            )
        return self._flow(view, network, self.machine(view))


def _at(found: Provenance, row: int, col: int) -> Provenance:
    """One pixel of what is known of all."""
    here = (..., slice(row, row + 1), slice(col, col + 1))
    return replace(
        found,
        pixel=(row, col),
        **{
            name: getattr(found, name)[here]
            for name in ("image", "row", "col", "element", "weight", "entropy")
        },
    )


def window_of(machine: ScoreMachine, alpha_bar: float) -> int | None:
    """The window of a machine at a noise level; None: the whole image."""
    return window_at(machine.locality, alpha_bar)
