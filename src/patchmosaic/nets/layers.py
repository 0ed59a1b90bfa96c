"""What both networks are made of: convolutions that pad as told, and the condition on time and class."""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from patchmosaic.errors import InputError, check_count

PADDINGS = ("zeros", "circular")


def convolution(inputs: int, outputs: int, padding: Any, stride: int = 1, zero: bool = False) -> nn.Conv2d:
    """A 3 x 3 convolution; ``zero``: with weights of zero."""
    layer = nn.Conv2d(inputs, outputs, 3, stride, padding=1, padding_mode=padding)
    if zero:
        nn.init.zeros_(layer.weight)
    return layer


class Condition(nn.Module):
    """A vector for each sample from its time step and, for a conditional network, its class.

    Args:
        width: numbers in the vector.
        classes: how many classes there are; None for an unconditional network.
    """

    def __init__(self, width: int, classes: int | None):
        super().__init__()
        self.width = width
        self.mix = nn.Sequential(nn.Linear(width // 2 * 2, width), nn.SiLU(), nn.Linear(width, width))
        self.classes = None if classes is None else nn.Embedding(classes, width)

    def forward(
        self, timestep: Float[Tensor, " b"], class_labels: Int[Tensor, " b"] | None
    ) -> Float[Tensor, "b width"]:
        """The vectors; see :func:`per_sample_timestep`."""
        half = self.width // 2
        frequencies = torch.exp(-math.log(1e4) / half * torch.arange(half, device=timestep.device))
        angles = timestep[:, None] * frequencies.to(timestep)
        vector = self.mix(torch.cat([angles.cos(), angles.sin()], 1))
        if (self.classes is None) != (class_labels is None):
            raise InputError(
                "this network has no classes: leave out the labels"
                if self.classes is None
                else "this network draws a class: give a label for every image"
            )
        if self.classes is not None and class_labels is not None:
            if not bool(((class_labels >= 0) & (class_labels < self.classes.num_embeddings)).all()):
                raise InputError(f"labels must be 0 to {self.classes.num_embeddings - 1} for this network")
            vector = vector + self.classes(class_labels)
        return nn.functional.silu(vector)


class ResidualLayer(nn.Module):
    """x + convolution(silu(x scaled and shifted by the condition)): no normalisation, nothing sees far."""

    def __init__(self, channels: int, condition: int, padding: str):
        super().__init__()
        self.modulate = nn.Linear(condition, 2 * channels)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)
        self.convolve = convolution(channels, channels, padding)

    def forward(
        self, x: Float[Tensor, "b c h w"], condition: Float[Tensor, "b k"]
    ) -> Float[Tensor, "b c h w"]:
        """Images of the same size."""
        scale, shift = self.modulate(condition)[:, :, None, None].chunk(2, 1)
        return x + self.convolve(nn.functional.silu(x * (1 + scale) + shift))


def per_sample_timestep(timestep: Tensor | float | int, sample: Tensor) -> Float[Tensor, " b"]:
    """One time step per image, in the dtype of ``sample``."""
    steps = torch.as_tensor(timestep, device=sample.device).to(sample.dtype)
    return steps.flatten().expand(len(sample))


def check_choices(padding: str, **counts: int) -> None:
    """InputError for an unknown padding or a count below 1."""
    if padding not in PADDINGS:
        raise InputError(f"padding must be one of {', '.join(PADDINGS)}, not {padding!r}")
    for name, count in counts.items():
        check_count(name, count)
