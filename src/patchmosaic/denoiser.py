"""The one protocol that score machines and trained networks obey."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchmosaic.errors import InputError

AlphaBar: TypeAlias = float | Tensor


class Denoiser(ABC):
    """Anything that estimates the clean image from a noisy one."""

    @abstractmethod
    def denoise(
        self, x: Float[Tensor, "b c h w"], alpha_bar: AlphaBar, labels: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b c h w"]:
        """The estimate D of the clean images in [-1, 1].

        Args:
            x: noisy images, sqrt(alpha_bar) * clean + sqrt(1 - alpha_bar) * unit noise.
            alpha_bar: signal share in [0, 1), one for all or one per image, shape (b,).
            labels: one class per image, or None for no condition.

        Raises:
            InputError: for what cannot be denoised: a wrong shape, alpha_bar outside [0, 1), an unknown class.
        """

    @final
    def score(
        self, x: Float[Tensor, "b c h w"], alpha_bar: AlphaBar, labels: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b c h w"]:
        """The score (sqrt(alpha_bar) D - x) / (1 - alpha_bar), shaped as ``x``; errors of :meth:`denoise`."""
        mean = self.denoise(x, alpha_bar, labels)
        signal, noise = signal_and_noise(alpha_bar, x)
        return (signal * mean - x) / noise**2

    @final
    def epsilon(
        self, x: Float[Tensor, "b c h w"], alpha_bar: AlphaBar, labels: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b c h w"]:
        """The unit noise (x - sqrt(alpha_bar) D) / sqrt(1 - alpha_bar), shaped as ``x``; errors of :meth:`denoise`."""
        mean = self.denoise(x, alpha_bar, labels)
        signal, noise = signal_and_noise(alpha_bar, x)
        return (x - signal * mean) / noise


def per_sample(alpha_bar: AlphaBar, batch: int, clean: bool = False) -> list[float]:
    """One checked alpha_bar per image, in float64; 1 is allowed for ``clean`` images."""
    try:
        values = (
            [float(alpha_bar)]
            if isinstance(alpha_bar, float)
            else torch.as_tensor(alpha_bar, dtype=torch.float64).flatten().tolist()
        )
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"alpha_bar must be a number, or one per image, not {alpha_bar!r}") from None
    if len(values) not in (1, batch):
        raise InputError(f"alpha_bar must be one number or one per image ({batch}), not {len(values)}")
    wrong = [value for value in values if not (0 <= value < 1 or (clean and value == 1))]
    if wrong:
        why = ": at 1 the image is already clean" if wrong[0] == 1 else ""
        raise InputError(f"alpha_bar must lie in {'[0, 1]' if clean else '[0, 1)'}, not {wrong[0]:g}{why}")
    return values if len(values) == batch else values * batch


def check_images(x: object) -> None:
    """InputError unless ``x`` is a tensor (B, C, H, W) of floats."""
    if not isinstance(x, Tensor) or x.ndim != 4 or not x.is_floating_point():
        raise InputError(f"x must be a tensor of floats of shape (B, C, H, W), not {_described(x)}")


def signal_and_noise(alpha_bar: AlphaBar, x: Float[Tensor, "b c h w"]) -> tuple[Tensor, Tensor]:
    """(sqrt(alpha_bar), sqrt(1 - alpha_bar)) of shape (b, 1, 1, 1), computed in float64, in the dtype of x."""
    values = torch.tensor(per_sample(alpha_bar, len(x)), dtype=torch.float64).view(-1, 1, 1, 1)
    return values.sqrt().to(x), (1 - values).sqrt().to(x)


def _from_epsilon(output: Tensor, x: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    return (x - noise * output) / signal


def _from_x0(output: Tensor, x: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    return output


def _from_v(output: Tensor, x: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    return signal * x - noise * output


def _from_score(output: Tensor, x: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    return (x + noise**2 * output) / signal


PREDICTIONS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "epsilon": _from_epsilon,
    "x0": _from_x0,
    "v": _from_v,
    "score": _from_score,
}


class FunctionDenoiser(Denoiser):
    """A denoiser from any function, such as a trained network.

    Args:
        function: called as ``function(x, alpha_bar, labels)`` with alpha_bar of shape (b,), in float64 because
            float32 rounds 1 - alpha_bar away; a network wants ``alpha_bar.to(x)``.
        predicts: what it returns: "epsilon", "x0", "v" (= sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0,
            Salimans & Ho 2022) or "score".

    Raises:
        InputError: for another prediction, or what is not a function.
    """

    def __init__(
        self, function: Callable[[Tensor, Tensor, Tensor | None], Tensor], predicts: str = "epsilon"
    ):
        if predicts not in PREDICTIONS:
            raise InputError(f"predicts must be one of {', '.join(PREDICTIONS)}, not {predicts!r}")
        if not callable(function):
            raise InputError(
                f"function must be called as function(x, alpha_bar, labels): {type(function).__name__} cannot be"
            )
        self.function, self.predicts = function, predicts

    @torch.no_grad()
    def denoise(
        self, x: Float[Tensor, "b c h w"], alpha_bar: AlphaBar, labels: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b c h w"]:
        """See :meth:`Denoiser.denoise`; in the dtype of ``x``, whatever that of the function's result.

        Raises:
            InputError: also for ``x`` that is no tensor (B, C, H, W) of floats, and when the function returns no
                tensor, another shape or NaN.
        """
        return PREDICTIONS[self.predicts](
            self.output(x, alpha_bar, labels), x, *signal_and_noise(alpha_bar, x)
        )

    def output(
        self, x: Float[Tensor, "b c h w"], alpha_bar: AlphaBar, labels: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b c h w"]:
        """The function's output with its graph, for derivatives with respect to ``x``; errors of :meth:`denoise`."""
        check_images(x)
        values = torch.tensor(per_sample(alpha_bar, len(x)), dtype=torch.float64, device=x.device)
        if self.predicts in ("epsilon", "score") and not bool(values.all()):
            raise InputError(
                f"{self.predicts} says nothing about the image at alpha_bar = 0: start at an earlier time, as "
                "sample(start='authors') does, or use a schedule that ends above 0"
            )
        output = self.function(x, values, labels)
        if not isinstance(output, Tensor):
            raise InputError(
                f"the network returned {_described(output)}: return the tensor of its prediction"
            )
        if output.shape != x.shape:
            raise InputError(f"the network returned shape {tuple(output.shape)} for input {tuple(x.shape)}")
        output = output.to(x)
        if not bool(output.isfinite().all()):
            raise InputError("the network returned NaN or infinity; check its weights and its input range")
        return output


def _described(found: object) -> str:
    """What was given where a tensor is wanted, in a few words."""
    if not isinstance(found, Tensor):
        return type(found).__name__
    return f"{str(found.dtype).split('.')[-1]} of shape {tuple(found.shape)}"
