"""How alike two batches of pictures are, image by image, each measure under its own name.

Every measure takes the reference (the network's pictures) first and returns float64 (B,); none is ever NaN. A
constant image has no variance to explain, and an image of zeros no direction; what a measure says then is
part of its definition: 1 if the two images are equal, else 0.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from patchmosaic.errors import InputError

Images = Float[Tensor, "b c h w"]
QUANTILES = (0.05, 0.25, 0.75, 0.95)


def pearson(reference: Images, images: Images) -> Float[Tensor, " b"]:
    """r: Pearson's correlation over all pixels and channels of an image, in [-1, 1].

    It ignores brightness and contrast: r(a, s b + m) = r(a, b) for s > 0. The paper's tables print it under the
    heading "Corr.".
    """
    a, b = _flat(reference, images)
    r = _ratio((_centred(a) * _centred(b)).sum(1), _centred(a).norm(dim=1) * _centred(b).norm(dim=1), a, b)
    return r.clamp(-1, 1)


def pearson_squared(reference: Images, images: Images) -> Float[Tensor, " b"]:
    """r2: the square of :func:`pearson`, in [0, 1]; the best R2 that brightness and contrast could bring."""
    return pearson(reference, images) ** 2


def determination(reference: Images, images: Images) -> Float[Tensor, " b"]:
    """R2 = 1 - SS_res / SS_tot, the coefficient of determination, in (-inf, 1]; 1 only for equal images.

    SS_res is the sum of (reference - images)^2, SS_tot that of (reference - its mean over pixels and channels)^2.
    """
    a, b = _flat(reference, images)
    residual, total = (a - b).square().sum(1), _centred(a).square().sum(1)
    return _ratio(total - residual, total, a, b)


def cosine(reference: Images, images: Images) -> Float[Tensor, " b"]:
    """The cosine of the angle between two images as vectors, in [-1, 1]."""
    a, b = _flat(reference, images)
    return _ratio((a * b).sum(1), a.norm(dim=1) * b.norm(dim=1), a, b).clamp(-1, 1)


def mean_squared_error(reference: Images, images: Images) -> Float[Tensor, " b"]:
    """The mean of (reference - images)^2 over pixels and channels, from 0."""
    a, b = _flat(reference, images)
    return (a - b).square().mean(1)


METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "r": pearson,
    "r2": pearson_squared,
    "R2": determination,
    "cosine": cosine,
    "mse": mean_squared_error,
}


def measure(reference: Images, images: Images) -> dict[str, Float[Tensor, " b"]]:
    """Every measure of ``METRICS`` by name.

    Raises:
        InputError: for batches of different shapes or with NaN or infinity.
    """
    return {name: metric(reference, images) for name, metric in METRICS.items()}


def summary(values: Float[Tensor, " b"]) -> dict[str, Any]:
    """Median, mean and ``QUANTILES`` of a measure over images, interpolated linearly."""
    values = values.double()
    levels = torch.tensor(QUANTILES, dtype=torch.float64)
    quantiles = torch.quantile(values, levels).tolist()
    return {
        "median": float(torch.quantile(values, 0.5)),
        "mean": float(values.mean()),
        "quantiles": {str(level): value for level, value in zip(QUANTILES, quantiles, strict=True)},
    }


def _flat(reference: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Both as (B, pixels) in float64, checked."""
    if reference.shape != images.shape or reference.ndim != 4 or not reference.numel():
        raise InputError(
            "images are compared in equal batches (B, C, H, W) of one at least, "
            f"not {tuple(reference.shape)} with {tuple(images.shape)}"
        )
    a, b = (part.detach().cpu().double().flatten(1) for part in (reference, images))
    if not bool(a.isfinite().all() and b.isfinite().all()):
        raise InputError("images to compare contain NaN or infinity")
    return a, b


def _centred(flat: Tensor) -> Tensor:
    """Less the mean of each row; exactly zero for a constant row, whose mean may be rounded."""
    constant = flat.amax(1, keepdim=True) == flat.amin(1, keepdim=True)
    return (flat - flat.mean(1, keepdim=True)).masked_fill(constant, 0)


def _ratio(above: Tensor, below: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Above / below; where that is 0 / 0, 1 for equal rows and 0 for others."""
    equal = (a == b).all(1).double()
    return torch.where(below > 0, above / below.where(below > 0, torch.ones_like(below)), equal)
