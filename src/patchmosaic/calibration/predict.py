"""The window at each noise level from data alone: the one in which a machine denoises images it has not seen best.

The risk of a window P at a noise level is the mean squared error of the machine's posterior mean (Kamb & Ganguli 2025,
eq. 7-10 and 41) over random pixels of noised held-out images. Every window and every level is measured on the same
images, pixels and noise, so that differences between windows are paired; errors are clustered by image.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchmosaic.calibration.calibrate import candidate_windows, sort_windows
from patchmosaic.denoiser import Denoiser
from patchmosaic.dictionary import Dictionary
from patchmosaic.engines.rings import PixelQueries, ring_means
from patchmosaic.errors import InputError, check_count
from patchmosaic.locality import LocalitySchedule
from patchmosaic.machine import DEFAULT_MEMORY_BUDGET, SYMMETRIES
from patchmosaic.nets.network import Network
from patchmosaic.records import read_json, write_json
from patchmosaic.sampling import generators
from patchmosaic.schedule import CosineSchedule
from patchmosaic.symmetry import Rules

RULES = ("gain", "argmin", "one-stderr")  # of the data alone
AS_NETWORK = "network"  # the rule that also asks how well a network denoises
HELD_OUT, PIXELS, BATCH = 200, 8, 10
_FORGONE = 0.1  # the share of the gain that rule "gain" leaves to larger windows
_ROUNDING = 1e-9  # risks closer than this, and a millionth of themselves, are equal

_TABLES = ("risk", "risk_stderr", "excess_stderr")
_SAVED = ("alpha_bars", "candidates", *_TABLES, "rule")

Images = Tensor | np.ndarray
HeldOut = int | Images | tuple[Images, Tensor | np.ndarray] | None


class PredictedSchedule(LocalitySchedule):
    """The window that a rule chooses from held-out risks.

    "argmin" takes the window of least risk; "one-stderr" the smallest one whose paired difference from the least risk
    is at most its own standard error; "gain" the smallest one of which that is true, or which has nine tenths of what
    the best window gains on the smallest. Of equal windows the smallest is taken.

    "network" takes the smallest window of which one of these is true, or which denoises as well as a network did; but
    none smaller than at less noise, because near pure noise a network's clean estimate means little.

    Args:
        alpha_bars: distinct noise levels in [0, 1].
        candidates: the windows tried, ascending.
        risk: mean squared error, (levels, candidates).
        risk_stderr: its standard error over held-out images.
        excess_stderr: the standard error of the paired difference from the window of least risk.
        rule: of ``RULES``, or "network".
        network_risk: a network's mean squared error on the same pixels, (levels,), if it was measured.
    """

    def __init__(
        self,
        alpha_bars: Sequence[float],
        candidates: Sequence[int],
        risk: Float[Tensor, "levels candidates"],
        risk_stderr: Float[Tensor, "levels candidates"],
        excess_stderr: Float[Tensor, "levels candidates"],
        rule: str = RULES[0],
        network_risk: Float[Tensor, " levels"] | None = None,
    ):
        check_rule(rule, network_risk)
        shape = (len(alpha_bars), len(candidates))
        order = torch.tensor(alpha_bars, dtype=torch.float64).argsort(descending=True)
        tables = [torch.as_tensor(table, dtype=torch.float64) for table in (risk, risk_stderr, excess_stderr)]
        if any(tuple(table.shape) != shape for table in tables):
            raise InputError(f"risks and their errors must have shape (levels, candidates) = {shape}")
        self.risk, self.risk_stderr, self.excess_stderr = (table[order] for table in tables)
        self.network_risk = None
        if network_risk is not None:
            self.network_risk = torch.as_tensor(network_risk, dtype=torch.float64)
            if tuple(self.network_risk.shape) != shape[:1]:
                raise InputError(f"a network's risk must have one number for each of {shape[0]} levels")
            self.network_risk = self.network_risk[order]
        self.candidates, self.rule = tuple(candidates), rule
        super().__init__([alpha_bars[i] for i in order], [candidates[i] for i in self._choices()])

    @classmethod
    def from_residuals(
        cls,
        alpha_bars: Sequence[float],
        candidates: Sequence[int],
        residuals: Float[Tensor, "levels candidates images pixels c"],
        rule: str = RULES[0],
        network_errors: Float[Tensor, "levels images"] | None = None,
    ) -> "PredictedSchedule":
        """From what posterior means are off by, and a network's mean squared errors; see :class:`HeldOutRisk`."""
        errors = residuals.square().mean((3, 4))
        risk = errors.mean(2)
        best = errors.gather(1, _least(risk)[:, None, None].expand(-1, 1, errors.shape[2]))
        network_risk = None if network_errors is None else network_errors.mean(1)
        return cls(alpha_bars, candidates, risk, _stderr(errors), _stderr(errors - best), rule, network_risk)

    def with_rule(self, rule: str) -> "PredictedSchedule":
        """The same risks under another rule, or an InputError where there is no such rule."""
        tables = self.risk, self.risk_stderr, self.excess_stderr
        return PredictedSchedule(self.alpha_bars, self.candidates, *tables, rule, self.network_risk)

    def save(self, path: str | Path) -> None:
        """Write a JSON that :meth:`LocalitySchedule.load` reads too."""
        write_json(path, self.describe())

    def describe(self) -> dict[str, object]:
        """What :meth:`save` writes."""
        tables = {name: getattr(self, name).tolist() for name in _TABLES}
        if self.network_risk is not None:
            tables["network_risk"] = self.network_risk.tolist()
        chosen = {"alpha_bars": self.alpha_bars, "windows": self.windows}
        return {**chosen, "candidates": self.candidates, "rule": self.rule, **tables}

    @classmethod
    def load(cls, path: str | Path) -> "PredictedSchedule":
        """Read what :meth:`save` wrote, or an InputError."""
        content = read_json(path)
        try:
            return cls(**{name: content[name] for name in _SAVED}, network_risk=content.get("network_risk"))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not a predicted schedule ({error}): predict it again") from None

    def _choices(self) -> list[int]:
        least = _least(self.risk)
        if self.rule == "argmin":
            return least.tolist()
        least_risk = self.risk.gather(1, least[:, None])
        excess = self.risk - least_risk
        allowed = self.excess_stderr + _slack(self.risk)
        if self.rule in ("gain", AS_NETWORK):
            allowed = allowed.maximum(_FORGONE * excess[:, :1])
        if self.network_risk is not None and self.rule == AS_NETWORK:
            allowed = allowed.maximum(self.network_risk[:, None] - least_risk)
        chosen = (excess <= allowed).double().argmax(1)
        return (chosen.cummax(0).values if self.rule == AS_NETWORK else chosen).tolist()


def check_rule(rule: str, network: object) -> None:
    """InputError for a rule that is not known, or that asks for a network where there is none."""
    if rule not in (*RULES, AS_NETWORK):
        raise InputError(f"rule must be one of {', '.join((*RULES, AS_NETWORK))}, not {rule!r}")
    if rule == AS_NETWORK and network is None:
        raise InputError("rule 'network' asks how well a network denoises: give the network")


def _least(risk: Float[Tensor, "levels candidates"]) -> Int[Tensor, " levels"]:
    """The first of the least risks, up to rounding."""
    return (risk <= risk.amin(1, keepdim=True) + _slack(risk)).double().argmax(1)


def _slack(risk: Float[Tensor, "levels candidates"]) -> Float[Tensor, "levels 1"]:
    return _ROUNDING + 1e-6 * risk.amin(1, keepdim=True)


def _stderr(errors: Float[Tensor, "levels candidates images"]) -> Float[Tensor, "levels candidates"]:
    return errors.std(2) / errors.shape[2] ** 0.5


@dataclass(frozen=True, eq=False)
class HeldOutRisk:
    """What a prediction measures: a dictionary, and noised pixels of images that are not in it.

    Attributes:
        dictionary: training images.
        rules: which training positions may stand in for a pixel.
        queries: the pixels.
        labels: the class of each image of the queries, or None.
        alpha_bars: noise levels, as given.
        candidates: windows, ascending.
    """

    dictionary: Dictionary
    rules: Rules
    queries: PixelQueries
    labels: Int[Tensor, " b"] | None
    alpha_bars: tuple[float, ...]
    candidates: tuple[int, ...]

    def residuals(
        self, rows: slice, memory_budget: int = DEFAULT_MEMORY_BUDGET
    ) -> Float[Tensor, "levels candidates images pixels c"]:
        """Posterior mean less truth, float64, for some of the held-out images, each by its own class alone."""
        queries = PixelQueries(*(part[rows] for part in self.queries))
        count, pixels = queries.positions.shape
        found = torch.empty(
            len(self.alpha_bars),
            len(self.candidates),
            count,
            pixels,
            queries.clean.shape[1],
            dtype=torch.float64,
        )
        for label, members in self._classes(rows):
            some = PixelQueries(*(part[members] for part in queries))
            means = ring_means(
                self.dictionary, self.rules, memory_budget, some, self.alpha_bars, self.candidates, label
            )
            where = some.positions[:, None].expand(-1, some.clean.shape[1], -1)
            found[:, :, members] = means - some.clean.double().flatten(2).gather(2, where).transpose(1, 2)
        return found

    @torch.no_grad()
    def network_errors(self, network: Denoiser, rows: slice) -> Float[Tensor, "levels images"]:
        """Mean squared errors of a network on the same pixels, float64.

        It is given the labels, if there are any; a :class:`Network` without classes is not.
        """
        clean, eta, positions = (part[rows] for part in self.queries)
        takes_labels = not isinstance(network, Network) or network.classes is not None
        labels = self.labels[rows] if self.labels is not None and takes_labels else None
        where = positions[:, None].expand(-1, clean.shape[1], -1)
        found = []
        for alpha_bar in self.alpha_bars:
            x = alpha_bar**0.5 * clean + (1 - alpha_bar) ** 0.5 * eta
            errors = network.denoise(x, alpha_bar, labels).double() - clean
            found.append(errors.flatten(2).gather(2, where).square().mean((1, 2)))
        return torch.stack(found)

    def _classes(self, rows: slice) -> Iterator[tuple[int | None, Tensor]]:
        every = torch.arange(len(self.queries.clean[rows]))
        if self.labels is None:
            yield None, every
            return
        labels = self.labels[rows]
        for label in labels.unique().tolist():
            yield label, every[labels == label]


def predict_locality(
    images: Images,
    labels: Tensor | np.ndarray | None = None,
    symmetry: str = "translation",
    padding: str = "zeros",
    candidates: Sequence[int] | None = None,
    alpha_bars: Sequence[float] | None = None,
    held_out: HeldOut = None,
    max_window: int | None = None,
    seed: int = 0,
    *,
    rule: str | None = None,
    network: Denoiser | None = None,
    pixels: int = PIXELS,
    done: Callable[[int], object] = lambda count: None,
) -> PredictedSchedule:
    """The window of a local machine at each noise level, from data alone: that of least held-out risk.

    Args:
        images: training images (N, C, H, W): floats in [-1, 1] or uint8 in 0..255.
        labels: (N,) classes; then a held-out image is denoised by those of its own class. None: by all.
        symmetry: "none" or "translation", as for :class:`patchmosaic.ScoreMachine`, as is ``padding``.
        padding: "zeros" or "circular".
        candidates: odd windows to try; by default 3, 5, ..., 31 or what reaches the whole image.
        alpha_bars: noise levels in [0, 1); by default the paper's twenty, t = 1/20, ..., 20/20.
        held_out: how many of ``images``, drawn by ``seed``, to keep out of the dictionary and measure on; or other
            images, or (images, labels). By default a fifth of the images, 200 at most.
        max_window: the largest window to try, such as a network's receptive field.
        seed: of held-out images, pixels and noise.
        rule: "gain", "argmin", "one-stderr" or "network", see :class:`PredictedSchedule`. By default "gain", or
            "network" if there is one.
        network: a trained network whose risk on the same pixels is to be measured too. It is given the labels, unless
            it is a :class:`patchmosaic.Network` without classes.
        pixels: how many to draw of each held-out image; all, if there are fewer.
        done: called with the number of held-out images just measured.

    Raises:
        InputError: for any argument that cannot be used; the message says what to do.
    """
    rule = rule or default_rule(network)
    check_rule(rule, network)
    risk = plan_risk(
        images, labels, symmetry, padding, candidates, alpha_bars, held_out, max_window, seed, pixels
    )
    parts, of_network = [], []
    for part in torch.arange(len(risk.queries.clean)).split(BATCH):
        rows = slice(int(part[0]), int(part[-1]) + 1)
        parts.append(risk.residuals(rows))
        if network is not None:
            of_network.append(risk.network_errors(network, rows))
        done(len(part))
    errors = torch.cat(of_network, 1) if of_network else None
    return PredictedSchedule.from_residuals(
        risk.alpha_bars, risk.candidates, torch.cat(parts, 2), rule, errors
    )


def default_rule(network: object) -> str:
    """The rule where none is asked for."""
    return RULES[0] if network is None else AS_NETWORK


def plan_risk(
    images: Images,
    labels: Tensor | np.ndarray | None = None,
    symmetry: str = "translation",
    padding: str = "zeros",
    candidates: Sequence[int] | None = None,
    alpha_bars: Sequence[float] | None = None,
    held_out: HeldOut = None,
    max_window: int | None = None,
    seed: int = 0,
    pixels: int = PIXELS,
) -> HeldOutRisk:
    """What :func:`predict_locality` measures, with the same arguments; draws everything random."""
    if symmetry not in SYMMETRIES:
        raise InputError(f"symmetry must be one of {', '.join(SYMMETRIES)}, not {symmetry!r}")
    rules = Rules(symmetry == "translation", padding)
    check_count("pixels", pixels)
    generator = generators([seed])[0]
    every = Dictionary(images, labels)
    dictionary, held = _split(every, held_out, generator)
    _, height, width = every.shape
    clean = held.images(held.members(None), torch.float32)
    eta = torch.randn(clean.shape, generator=generator)
    positions = torch.stack([torch.randperm(height * width, generator=generator)[:pixels] for _ in clean])
    return HeldOutRisk(
        dictionary,
        rules,
        PixelQueries(clean, eta, positions),
        held.labels,
        _levels(alpha_bars),
        _windows(candidates, max_window, min(height, width)),
    )


def _split(every: Dictionary, held_out: HeldOut, generator: torch.Generator) -> tuple[Dictionary, Dictionary]:
    """Training and held-out images."""
    if held_out is None:
        held_out = min(HELD_OUT, max(2, len(every) // 5))
    if isinstance(held_out, int):
        if len(every) < 3:
            raise InputError(f"windows are predicted from 3 images at least, and there are {len(every)}")
        if not 2 <= held_out < len(every):
            raise InputError(f"held_out must be 2 to {len(every) - 1} of {len(every)} images, not {held_out}")
        order = torch.randperm(len(every), generator=generator)
        return every.subset(order[held_out:].sort().values), every.subset(order[:held_out])
    held = Dictionary(*held_out) if isinstance(held_out, tuple) else Dictionary(held_out)
    if held.shape != every.shape:
        raise InputError(f"held-out images must have shape {every.shape} like the others, not {held.shape}")
    if len(held) < 2:
        raise InputError("a standard error needs two held-out images at least")
    if (every.labels is None) != (held.labels is None):
        raise InputError("give classes of both or neither: held_out=(images, labels) goes with labels")
    return every, held


def _levels(alpha_bars: Sequence[float] | None) -> tuple[float, ...]:
    if alpha_bars is None:
        schedule = CosineSchedule()
        return tuple(schedule.alpha_bar(i / 20) for i in range(1, 21))
    levels = tuple(map(float, alpha_bars))
    if not levels or not all(0 <= level < 1 for level in levels) or len(set(levels)) < len(levels):
        raise InputError("alpha_bars must be different numbers in [0, 1), one at least")
    return levels


def _windows(candidates: Sequence[int] | None, max_window: int | None, size: int) -> tuple[int, ...]:
    windows = sort_windows(candidates if candidates is not None else candidate_windows(size, max_window))
    kept = tuple(window for window in windows if max_window is None or window <= max_window)
    if not kept:
        raise InputError(f"no candidate is as small as max_window={max_window}")
    return kept
