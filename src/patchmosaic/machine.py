"""ScoreMachine: the one estimator, with locality and symmetry as choices."""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchmosaic import engines
from patchmosaic.denoiser import AlphaBar, Denoiser, per_sample
from patchmosaic.dictionary import Dictionary, check_dense
from patchmosaic.engines.trace import trace
from patchmosaic.errors import InputError, check_count
from patchmosaic.locality import Locality, LocalitySchedule, check_window, window_at
from patchmosaic.symmetry import Rules

DEFAULT_MEMORY_BUDGET, LEAST_MEMORY_BUDGET = 1 << 29, 1 << 20
MAX_SOURCES = 10_000  # to be named for each pixel
SYMMETRIES = ("none", "translation")
_LARGEST = 1e6  # pixel of a noisy image; distances from there still fit all engines' numbers, at any noise
_Job = tuple[Tensor, list[float], int | None, int | None]  # images, noise levels, window, label


class ScoreMachine(Denoiser):
    """The best denoiser under a locality and a symmetry: a posterior mean over training patches.

    Each pixel of the estimate is ``sum softmax(-|phi - sqrt(ab) psi|^2 / (2 (1 - ab))) psi(0)`` over the patches
    psi that may stand in for its window phi (Kamb & Ganguli 2025, eq. 3-10 and 39-41).

    ============  =============  ==============================  =========================
    locality      symmetry       padding                         machine
    ============  =============  ==============================  =========================
    None          "none"         either                          IS, ideal
    None          "translation"  "circular"                      ES, equivariant
    P             "none"         either                          LS, local
    P             "translation"  "circular"                      ELS, equivariant local
    P             "translation"  "zeros"                         bbELS, boundary-broken ELS
    ============  =============  ==============================  =========================

    A whole image that is not wrapped sees all of its border, so only itself can stand in for it:
    ``locality=None, symmetry="translation", padding="zeros"`` is IS.

    Args:
        images: training images (N, C, H, W): floats in [-1, 1] or uint8 in 0..255, a tensor or a numpy array.
        labels: (N,) integer classes, for class-conditional denoising; or None.
        locality: None for the whole image, an odd window P, or a :class:`LocalitySchedule`.
        symmetry: "none": only a pixel's own position stands in for it; "translation": others may.
        padding: "zeros" or "circular": what a window sees beyond the image.
        keys: "all" training positions, or only those whose window lies "inside" the training image (the
            authors' variant of the wrapped ELS).
        group: "identity", "flip", "rotations" or "d4": acts on the training images (theorem B.2).
        engine: how the sum is carried out: "auto", or a name from ``patchmosaic.engines``.
        memory_budget: bytes of working memory beside the images, at least 1 MiB.
        tol: the largest error allowed in a pixel of D, in [0, 2): above 0, patches proven not to matter may be
            left out, from an index of 4 bytes per patch and 1/8 byte for each of its numbers (docs/engines.md).
            0 leaves out nothing.

    Raises:
        InputError: for any argument that cannot be used; the message says what to do.
    """

    def __init__(
        self,
        images: Tensor | np.ndarray,
        labels: Tensor | np.ndarray | None = None,
        locality: Locality = None,
        symmetry: str = "none",
        padding: str = "zeros",
        *,
        keys: str = "all",
        group: str = "identity",
        engine: str = "auto",
        memory_budget: int = DEFAULT_MEMORY_BUDGET,
        tol: float = 0.0,
    ):
        if symmetry not in SYMMETRIES:
            raise InputError(f"symmetry must be one of {', '.join(SYMMETRIES)}, not {symmetry!r}")
        check_count("memory_budget, in bytes,", memory_budget, LEAST_MEMORY_BUDGET)
        if not (isinstance(tol, int | float | np.integer | np.floating) and 0 <= tol < 2):
            raise InputError(f"tol must be a number in [0, 2), not {tol!r}")
        self.locality = locality if isinstance(locality, LocalitySchedule | None) else check_window(locality)
        self.rules = Rules(symmetry == "translation", padding, keys)
        self.dictionary = Dictionary(images, labels, group)
        self._engine_name, self._memory_budget, self.tol = engine, memory_budget, float(tol)
        self._choose_engine()

    def __repr__(self) -> str:
        channels, height, width = self.dictionary.shape
        symmetry = "translation" if self.rules.translation else "none"
        return (
            f"ScoreMachine({len(self.dictionary):,} images of {channels} x {height} x {width}, "
            f"locality={self.locality}, symmetry={symmetry!r}, padding={self.rules.padding!r}, "
            f"keys={self.rules.keys!r}, engine={type(self.engine).__name__}, tol={self.tol:g})"
        )

    def to(self, device: torch.device | str) -> "ScoreMachine":
        """Move the training images, and with them the work, to the engine that suits the device; returns self."""
        self.dictionary.to(device)
        self._choose_engine()
        return self

    def _choose_engine(self) -> None:
        engine = engines.choose(self._engine_name, self.dictionary.device)
        exact = engine(self.dictionary, self.rules, self._memory_budget)
        self.engine = engines.ScreenedEngine(exact, self.tol) if self.tol else exact

    def explain_engine(self, alpha_bar: float = 0.5, dtype: torch.dtype = torch.float32) -> str:
        """One line: which engine works at this noise level for images of this dtype, and why.

        Raises:
            InputError: for a noise level or a dtype that :meth:`denoise` refuses.
        """
        _check_dtype(dtype)
        (level,) = per_sample(alpha_bar, 1)
        return self.engine.explain(window_at(self.locality, level), dtype)

    @torch.no_grad()
    def denoise(
        self,
        x: Float[Tensor, "b c h w"],
        alpha_bar: AlphaBar,
        labels: Int[Tensor, " b"] | int | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """The posterior mean D of the clean images, in the dtype and on the device of ``x``.

        Args:
            x: noisy images (B, C, H, W), float32 or float64, of the training images' size.
            alpha_bar: signal share in [0, 1): one number, or (B,).
            labels: (B,) classes, or one for all; None uses every training image.

        Raises:
            InputError: for a wrong shape or dtype, NaN, numbers beyond 1e6, alpha_bar outside [0, 1) or an unknown
                label.
        """
        return self._mean(self.locality, x, alpha_bar, labels)

    @torch.no_grad()
    def denoise_windows(
        self,
        x: Float[Tensor, "b c h w"],
        alpha_bar: AlphaBar,
        windows: Sequence[int],
        labels: Int[Tensor, " b"] | int | None = None,
    ) -> Float[Tensor, "p b c h w"]:
        """:meth:`denoise`, to rounding, as if ``locality`` were each of ``windows`` in turn, whatever it is.

        Args:
            x: as for :meth:`denoise`, as are ``alpha_bar`` and ``labels``.
            alpha_bar: see there.
            windows: odd integers, in any order.
            labels: see there.

        Raises:
            InputError: as :meth:`denoise`; also for no windows, or one that is not odd and positive.
        """
        if len(windows) == 0:
            raise InputError("denoise_windows needs one window at least")
        sizes = [check_window(window) for window in windows]
        means = x.new_empty(len(sizes), *x.shape)
        for rows, (images, alpha_bars, _, label) in self._jobs(sizes[0], x, alpha_bar, labels):
            means[:, rows] = self.engine.posterior_means(images, alpha_bars, sizes, label).to(x.device)
        return means

    @torch.no_grad()
    def denoise_certified(
        self,
        x: Float[Tensor, "b c h w"],
        alpha_bar: AlphaBar,
        labels: Int[Tensor, " b"] | int | None = None,
    ) -> engines.Certified:
        """:meth:`denoise` with a proven bound on each pixel's error, at most ``tol``, and the share of pairs summed.

        Args and errors are those of :meth:`denoise`.
        """
        jobs = self._jobs(self.locality, x, alpha_bar, labels)
        mean, bound = torch.empty_like(x), torch.empty_like(x[:, 0], dtype=torch.float64)
        visited = torch.empty_like(bound[:, 0, 0])
        for rows, job in jobs:
            answer = self.engine.certified(*job)
            mean[rows], bound[rows], visited[rows] = (part.to(x.device) for part in answer)
        return engines.Certified(mean, bound, visited)

    @torch.no_grad()
    def trace(
        self,
        x: Float[Tensor, "b c h w"],
        alpha_bar: AlphaBar,
        labels: Int[Tensor, " b"] | int | None = None,
        k: int = 5,
        pixel: tuple[int, int] | None = None,
    ) -> engines.Traced:
        """What :meth:`denoise` rests on; :func:`patchmosaic.provenance` gives it in readable form.

        Args:
            x: as for :meth:`denoise`, as is ``labels``.
            alpha_bar: signal share in [0, 1]: one number, or (B,); 1 is the limit of zero noise.
            labels: see there.
            k: how many patches to name for each pixel.
            pixel: row and column of the only one to trace, as if the images were of one pixel; None: every one.

        Raises:
            InputError: as :meth:`denoise`; also for k < 1 or > 10,000, and a pixel outside the images.
        """
        k = check_count("k", k, most=MAX_SOURCES)
        height, width = self.dictionary.shape[1:]
        if pixel is not None and not _lies_in(pixel, (height, width)):
            raise InputError(f"pixel must be a row and a column in images of {height} x {width}, not {pixel}")
        jobs = self._jobs(self.locality, x, alpha_bar, labels, clean=True)
        found: list[tuple[Tensor, ...]] = [()] * len(x)
        for rows, job in jobs:
            traced = (
                self.engine.trace(*job, k)
                if pixel is None
                else trace(self.dictionary, self.rules, self._memory_budget, *job, k, pixel)
            )
            for row, *parts in zip(rows, *traced, strict=True):
                found[row] = tuple(parts)
        if not found:
            shown = (height, width) if pixel is None else (1, 1)
            named, seen = (
                torch.zeros(0, k, *shown, dtype=torch.float64),
                torch.zeros(0, *shown, dtype=torch.float64),
            )
            return engines.Traced(named.long(), named, seen, seen, seen.new_zeros(0, len(self.dictionary)))
        return engines.Traced(*(torch.stack(parts) for parts in zip(*found, strict=True)))

    def _mean(
        self, locality: Locality, x: Tensor, alpha_bar: AlphaBar, labels: Tensor | int | None
    ) -> Tensor:
        jobs = self._jobs(locality, x, alpha_bar, labels)
        if len(jobs) == 1:
            return self.engine.posterior_mean(*jobs[0][1]).to(x.device)
        mean = torch.empty_like(x)
        for rows, job in jobs:
            mean[rows] = self.engine.posterior_mean(*job).to(x.device)
        return mean

    def _jobs(
        self,
        locality: Locality,
        x: Tensor,
        alpha_bar: AlphaBar,
        labels: Tensor | int | None,
        clean: bool = False,
    ) -> list[tuple[list[int], _Job]]:
        """Samples that share a window and a label: their rows, and what to ask the engine."""
        self._check(x)
        alpha_bars = per_sample(alpha_bar, len(x), clean)
        classes = _per_sample_labels(labels, len(x))
        jobs: dict[tuple[int | None, int | None], list[int]] = {}
        for i in range(len(x)):
            jobs.setdefault((window_at(locality, alpha_bars[i]), classes[i]), []).append(i)
        on_device = x.to(self.dictionary.device)
        return [
            (rows, (on_device if len(jobs) == 1 else on_device[rows], [alpha_bars[i] for i in rows], *key))
            for key, rows in jobs.items()
        ]

    def _check(self, x: Tensor) -> None:
        _check_dtype(x.dtype if isinstance(x, Tensor) else type(x).__name__)
        if x.ndim != 4 or tuple(x.shape[1:]) != self.dictionary.shape:
            c, h, w = self.dictionary.shape
            raise InputError(
                f"x must have shape (B, {c}, {h}, {w}) like the training images, not {tuple(x.shape)}"
            )
        check_dense("x", x)
        if len(x) and not all(abs(bound.item()) <= _LARGEST for bound in x.aminmax()):  # so is NaN
            largest = x.abs().flatten(1).amax(dim=1)
            sample = int((~(largest <= _LARGEST)).nonzero()[0])
            found = f"{largest[sample]:.6g}" if largest[sample].isfinite() else "NaN or infinity"
            raise InputError(
                f"x contains {found} in sample {sample}: numbers up to {_LARGEST:.0e} can be denoised, "
                "and noisy images lie within a few units of 0"
            )


def _check_dtype(found: object) -> None:
    if found not in (torch.float32, torch.float64):
        raise InputError(f"x must be a float32 or float64 tensor, not {str(found).split('.')[-1]}")


def _lies_in(pixel: Any, shape: tuple[int, int]) -> bool:
    try:
        row, column = map(operator.index, pixel)
    except (TypeError, ValueError):
        return False
    return 0 <= row < shape[0] and 0 <= column < shape[1]


def _per_sample_labels(labels: Tensor | int | None, batch: int) -> list[int | None]:
    if labels is None:
        return [None] * batch
    try:
        found = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        found = torch.empty(0)
    if found.dtype.is_floating_point or found.dtype == torch.bool or found.numel() not in (1, batch):
        raise InputError(f"labels must be one integer, or one per image ({batch})")
    return found.flatten().expand(batch).tolist()
