"""The published algorithm for the local machines, written anew.

It follows ``idealscore.py`` of https://github.com/Kambm/convolutional_diffusion, the code behind Kamb & Ganguli
(ICML 2025, arXiv 2412.20292), which goes over the training images in batches and keeps a running softmax:

- where pixels share their training patches (ELS; the interior of bbELS; its edges, one row or column of pixels at
  a time), every patch of the batch is cut out and becomes a filter of one convolution over the noisy image, to
  which the patches' norms are added;
- where a pixel has its own position only (LS; the corners of bbELS), the squared difference of noisy and training
  image is unfolded into its P x P shifts, which are summed.

``published`` keeps its arrays and its passes over them. It departs only towards exactness: sums are kept for every
pixel and merged exactly (published: means over each batch), and the wrapped ELS uses all training positions, as the
equations do (published: only patches inside the image). Batches hold as many images as the published classes take
unless told otherwise.

``convolution`` is the same algorithm with what is superfluous taken out: the norm of the noisy window, which cancels
in the softmax; the patches' norms enter as the bias of the convolution; weighted centres are summed by a matrix
product instead of through an array with a number for every pair and channel; weights below e^-80 of the largest are
held there, because torch's exponential on a CPU may take 50 times as long where its result underflows.
"""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from patchmosaic.bench.problem import Problem, pairs_per_image

_LEAST_LOGIT = -80.0


class Sums:
    """A running softmax in float32, for queries of shape (..., q), keys along the dimension before."""

    def __init__(self) -> None:
        self.maximum = self.total = self.weighted = torch.zeros(())

    def add(self, logits: Float[Tensor, "... m q"], weigh: Callable[[Tensor], Tensor]) -> None:
        """Add m keys.

        Args:
            logits: of every key and query; overwritten.
            weigh: turns weights of the same shape into the weighted sums of the values, (..., c, q).
        """
        maximum = logits.amax(-2, keepdim=True)
        if self.maximum.ndim:
            maximum = torch.maximum(maximum, self.maximum)
            shrink = (self.maximum - maximum).exp_()
            self.total, self.weighted = self.total * shrink, self.weighted * shrink
        weights = logits.sub_(maximum).clamp_(min=_LEAST_LOGIT).exp_()
        self.maximum = maximum
        self.total = self.total + weights.sum(-2, keepdim=True)
        self.weighted = self.weighted + weigh(weights)

    def mean(self) -> Float[Tensor, "... c q"]:
        """The posterior means."""
        return self.weighted / self.total


class PublishedSums:
    """The running softmax as published: of x - sqrt(ab) psi, by way of an array over pairs and channels."""

    def __init__(self) -> None:
        self.maximum = self.total = self.weighted = torch.zeros(())

    def add(self, logits: Float[Tensor, "m q"], values: Float[Tensor, "m c q"]) -> None:
        """Add m keys."""
        maximum = logits.amax(0)
        if self.maximum.ndim:
            maximum = torch.maximum(maximum, self.maximum)
            shrink = torch.exp(self.maximum - maximum)
            self.total, self.weighted = self.total * shrink, self.weighted * shrink
        weights = torch.exp(logits - maximum)
        self.maximum = maximum
        self.total = self.total + weights.sum(0)
        self.weighted = self.weighted + (weights[:, None] * values).sum(0)

    def mean(self) -> Float[Tensor, "c q"]:
        """The mean of the values."""
        return self.weighted / self.total


class Region(NamedTuple):
    """A rectangle of pixels that are treated alike.

    Attributes:
        rows: from which row up to which.
        columns: likewise.
        shared: whether all its positions stand in for each of its pixels, or each only for itself.
    """

    rows: slice
    columns: slice
    shared: bool

    def band(self, padded: Tensor, radius: int) -> Tensor:
        """All that its windows see of padded images."""
        rows, columns = self.rows, self.columns
        return padded[..., rows.start : rows.stop + 2 * radius, columns.start : columns.stop + 2 * radius]


def published(problem: Problem, chunk: int) -> Float[Tensor, "1 c h w"]:
    """The posterior mean as published; its chunk is :func:`batch`."""
    mean = _answer(problem, chunk, PublishedSums, _published_step)
    return (problem.x - mean) / problem.alpha_bar**0.5


def batch(problem: Problem) -> int:
    """Training images at once, as published."""
    return 256 if problem.machine == "ls" else 64


def convolution(problem: Problem, chunk: int) -> Float[Tensor, "1 c h w"]:
    """The same by fewer passes over fewer arrays."""
    return _answer(problem, chunk, Sums, _step)


def _answer(problem: Problem, chunk: int, sums_of: Callable[[], Any], step: Callable[..., None]) -> Tensor:
    x, window, radius = problem.x, problem.window, problem.window // 2
    height, width = x.shape[2:]
    circular = problem.machine == "els"
    padded_x = pad(x, radius, circular)
    parts = [(region, sums_of()) for region in regions(problem.machine, height, width, radius)]
    for images in problem.images.split(chunk):
        padded = pad(images, radius, circular)
        for region, sums in parts:
            bands = region.band(padded_x, radius), region.band(padded, radius)
            step(sums, region.shared, *bands, window, problem.alpha_bar)
    mean = torch.empty_like(x)
    for region, sums in parts:
        found = mean[0, :, region.rows, region.columns]
        found.copy_(sums.mean().view(found.shape))
    return mean


def numbers_per_image(problem: Problem) -> int:
    """Numbers in the largest array that each training image adds to a chunk."""
    channels, height, width = problem.x.shape[1:]
    if problem.machine == "ls":
        return height * width * problem.window**2
    filters = height * width * channels * problem.window**2
    return max(filters, channels * pairs_per_image(problem.machine, height, width, problem.window))


def regions(machine: str, height: int, width: int, radius: int) -> Iterator[Region]:
    """Rectangles that together hold every pixel once."""
    if machine != "bbels":
        yield Region(slice(0, height), slice(0, width), machine == "els")
        return
    inner_rows, border_rows = _segments(height, radius)
    inner_columns, border_columns = _segments(width, radius)
    for rows, columns in product(inner_rows, inner_columns):
        yield Region(rows, columns, True)
    for rows, columns in product(_single(border_rows), inner_columns):
        yield Region(rows, columns, True)
    for rows, columns in product(inner_rows, _single(border_columns)):
        yield Region(rows, columns, True)
    for rows, columns in product(border_rows, border_columns):
        yield Region(rows, columns, False)


def _segments(size: int, radius: int) -> tuple[list[slice], list[slice]]:
    """The stretch of an axis from which windows see no border, if any, and those from which they do."""
    if size <= 2 * radius:
        return [], [slice(0, size)]
    borders = [slice(0, radius), slice(size - radius, size)] if radius else []
    return [slice(radius, size - radius)], borders


def _single(stretches: list[slice]) -> list[slice]:
    return [slice(i, i + 1) for stretch in stretches for i in range(stretch.start, stretch.stop)]


def _published_step(
    sums: PublishedSums, shared: bool, x: Tensor, images: Tensor, window: int, alpha_bar: float
) -> None:
    inner = slice(window // 2, -(window // 2) or None)
    if not shared:
        differences = x[:, None] - alpha_bar**0.5 * images[None]
        shifts = F.unfold((differences**2).sum(2), window).view(len(images), window**2, -1)
        sums.add(-shifts.sum(1) / (2 * (1 - alpha_bar)), differences[0, :, :, inner, inner].flatten(2))
        return
    filters = _filters(images, window)
    norms, centres = (filters**2).sum((1, 2, 3)), filters[:, :, window // 2, window // 2]
    x_norms = (F.unfold(x, window) ** 2).sum(1)
    products = F.conv2d(x, filters)[0].flatten(1)
    logits = -(x_norms - 2 * alpha_bar**0.5 * products + alpha_bar * norms[:, None]) / (2 * (1 - alpha_bar))
    sums.add(logits, x[:, :, inner, inner].flatten(2) - alpha_bar**0.5 * centres[:, :, None])


def _step(sums: Sums, shared: bool, x: Tensor, images: Tensor, window: int, alpha_bar: float) -> None:
    radius = window // 2
    precision = 1 / (1 - alpha_bar)
    if not shared:
        squares = (x - alpha_bar**0.5 * images).square().sum(1, keepdim=True)
        logits = F.unfold(squares, window).sum(1) * (-0.5 * precision)
        height, width = images.shape[2:]
        values = images[:, :, radius : height - radius, radius : width - radius].flatten(2)
        sums.add(logits, lambda weights: (weights[:, None] * values).sum(0))
        return
    filters = _filters(images, window)
    norms = filters.square().sum((1, 2, 3))
    centres = filters[:, :, radius, radius].T
    logits = F.conv2d(x * (alpha_bar**0.5 * precision), filters, norms * (-alpha_bar * precision / 2))
    sums.add(logits[0].flatten(1), lambda weights: centres @ weights)


def _filters(images: Float[Tensor, "n c h w"], window: int) -> Float[Tensor, "m c p p"]:
    patches = images.unfold(2, window, 1).unfold(3, window, 1).permute(0, 2, 3, 1, 4, 5)
    return patches.reshape(-1, images.shape[1], window, window)


def pad(images: Float[Tensor, "n c h w"], radius: int, circular: bool) -> Float[Tensor, "n c h2 w2"]:
    """Images with ``radius`` more pixels on every side: zeros, or the image wrapped around."""
    if not circular:
        return F.pad(images, (radius, radius, radius, radius))
    height, width = images.shape[2:]
    rows = torch.arange(-radius, height + radius) % height
    columns = torch.arange(-radius, width + radius) % width
    return images[:, :, rows][:, :, :, columns]
