"""What else a user might run: each answers a problem in float32, exactly up to rounding.

A rival is a function of a :class:`Problem` and a chunk, training images at a time; two of them cannot work in
chunks and take all images at once, as many as fit.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from patchmosaic.bench import published
from patchmosaic.bench.problem import RULES, Problem, pairs_per_image
from patchmosaic.bench.published import Sums
from patchmosaic.errors import InputError
from patchmosaic.symmetry import Block, position_blocks

MOST_NUMBERS = 1 << 26  # in a rival's largest array: 256 MiB of float32


@dataclass(frozen=True)
class Rival:
    """A way to compute the posterior mean.

    Attributes:
        answer: called with a problem and a chunk.
        numbers_per_image: how many numbers an image adds to the largest array.
        chunked: whether it works in chunks; if not, the chunk is ignored.
        chunk: the one to use for a problem; None for the fastest.
    """

    answer: Callable[[Problem, int], Tensor]
    numbers_per_image: Callable[[Problem], int]
    chunked: bool = True
    chunk: Callable[[Problem], int] | None = None


def unfold_matmul(problem: Problem, chunk: int) -> Float[Tensor, "1 c h w"]:
    """Patches side by side by unfold, one batched matrix product per block of positions, a running softmax."""
    blocks = _blocks(problem)
    queries = _query_patches(problem)
    scale = problem.alpha_bar**0.5 / (1 - problem.alpha_bar)
    scaled = [(queries[0, block.queries] * scale).transpose(1, 2) for block in blocks]
    sums = [Sums() for _ in blocks]
    for images in problem.images.split(chunk):
        patches = _patches(images, problem)
        for block, query, total in zip(blocks, scaled, sums, strict=True):
            _add_block(total, query, _keys(patches, block), problem)
    return _assembled(problem, ((block, total.mean()) for block, total in zip(blocks, sums, strict=True)))


def _add_block(sums: Sums, queries: Tensor, keys: Tensor, problem: Problem) -> None:
    bias = keys.square().sum(-1, keepdim=True) * (-0.5 * problem.alpha_bar / (1 - problem.alpha_bar))
    centres = keys[..., _centre(problem)].transpose(1, 2)
    sums.add(torch.baddbmm(bias, keys, queries), lambda weights: centres @ weights)


def fused_attention(problem: Problem, chunk: int) -> Float[Tensor, "1 c h w"]:
    """``torch.nn.functional.scaled_dot_product_attention``, on a CPU a fused flash kernel.

    Queries are (sqrt(ab) phi / sigma^2, 1), keys (psi, -ab |psi|^2 / (2 sigma^2)). The kernel asks for values of
    the keys' size, so the keys are their own values, and the centre is read off. The public function does not
    return the sum of the weights, without which chunks cannot be merged: it takes all images at once.
    """
    blocks = _blocks(problem)
    queries, patches = _query_patches(problem), _patches(problem.images, problem)
    precision, centre = 1 / (1 - problem.alpha_bar), _centre(problem)

    def found() -> Iterator[tuple[Block, Tensor]]:
        for block in blocks:
            keys = _keys(patches, block)
            bias = keys.square().sum(-1, keepdim=True) * (-0.5 * problem.alpha_bar * precision)
            keys = torch.cat([keys, bias], -1)[:, None]
            query = F.pad(queries[0, block.queries] * (problem.alpha_bar**0.5 * precision), (0, 1), value=1.0)
            mean = F.scaled_dot_product_attention(query[:, None], keys, keys, scale=1.0)
            yield block, mean[:, 0, :, :-1][..., centre].transpose(1, 2)

    return _assembled(problem, found())


def keops(problem: Problem, chunk: int) -> Float[Tensor, "1 c h w"]:
    """KeOps (https://www.kernel-operations.io): compiled reductions over symbolic matrices, all images at once.

    Raises:
        InputError: where pykeops is missing or cannot compile.
    """
    lazy = _lazy_tensor()
    blocks = _blocks(problem)
    queries, patches = _query_patches(problem), _patches(problem.images, problem)
    signal, precision = problem.alpha_bar**0.5, 1 / (1 - problem.alpha_bar)

    def found() -> Iterator[tuple[Block, Tensor]]:
        for block in blocks:
            keys = _keys(patches, block)
            values = keys[..., _centre(problem)].contiguous()
            query = queries[0, block.queries] * (precision / 2) ** 0.5
            key = keys * (signal * (precision / 2) ** 0.5)
            logits = -((lazy(query[:, :, None]) - lazy(key[:, None])) ** 2).sum(-1)
            yield block, logits.sumsoftmaxweight(lazy(values[:, None]), dim=2).transpose(1, 2)

    try:
        return _assembled(problem, found())
    except (ImportError, OSError, RuntimeError) as error:
        raise InputError(f"KeOps cannot run: {error}") from error


def _lazy_tensor() -> Any:
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))  # read when KeOps is loaded
    try:
        from pykeops.torch import LazyTensor
    except ImportError:
        raise InputError("pykeops is not installed (pip install pykeops)") from None
    return LazyTensor


def _blocks(problem: Problem) -> tuple[Block, ...]:
    height, width = problem.x.shape[2:]
    with torch.inference_mode(False):  # they are kept for others
        return position_blocks(height, width, problem.window, RULES[problem.machine])


def _query_patches(problem: Problem) -> Float[Tensor, "1 hw d"]:
    return _patches(problem.x, problem)


def _patches(images: Float[Tensor, "n c h w"], problem: Problem) -> Float[Tensor, "n hw d"]:
    padded = published.pad(images, problem.window // 2, RULES[problem.machine].padding == "circular")
    return F.unfold(padded, problem.window).transpose(1, 2)


def _keys(patches: Float[Tensor, "n hw d"], block: Block) -> Float[Tensor, "g nk d"]:
    g, k = block.keys.shape
    return patches[:, block.keys].transpose(0, 1).reshape(g, len(patches) * k, -1)


def _centre(problem: Problem) -> slice:
    """Which features of a patch are its centre's channels."""
    size = problem.window**2
    return slice(size // 2, None, size)


def _assembled(problem: Problem, parts: Iterator[tuple[Block, Tensor]]) -> Float[Tensor, "1 c h w"]:
    """The image from each block's means, (g, c, q)."""
    mean = torch.empty_like(problem.x).flatten(2)
    for block, means in parts:
        mean[0, :, block.queries] = means.transpose(0, 1)
    return mean.view(problem.x.shape)


def _patch_numbers(problem: Problem) -> int:
    return problem.x.numel() * problem.window**2


def _product_numbers(problem: Problem) -> int:
    height, width = problem.x.shape[2:]
    pairs = pairs_per_image(problem.machine, height, width, problem.window)
    return max(pairs, _patch_numbers(problem))


RIVALS: dict[str, Rival] = {
    "published": Rival(published.published, published.numbers_per_image, chunk=published.batch),
    "convolution": Rival(published.convolution, published.numbers_per_image),
    "unfold-matmul": Rival(unfold_matmul, _product_numbers),
    "fused-attention": Rival(fused_attention, _patch_numbers, chunked=False),
    "keops": Rival(keops, _patch_numbers, chunked=False),
}
