"""The readable reference: patches side by side, one matrix product, one streaming softmax.

Logits are float64 throughout. In ``-|phi - sqrt(ab) psi|^2 / (2 sigma^2)`` the term in phi alone is the same
for every key and cancels in the softmax. What is left is one product of features: (phi, 1), scaled by the noise
level, with (psi, |psi|^2).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchmosaic.engines.base import Engine
from patchmosaic.engines.windows import Frame, features, frame_and_blocks, pad, scaled, tile_size
from patchmosaic.posterior import SoftmaxMean, empty, finalize, update
from patchmosaic.symmetry import Block


class DenseEngine(Engine):
    """Every machine in plain torch; its float64 answers are what other engines are tested against."""

    def posterior_mean(
        self,
        x: Float[Tensor, "b c h w"],
        alpha_bars: list[float],
        window: int | None,
        label: int | None,
    ) -> Float[Tensor, "b c h w"]:
        """See :meth:`Engine.posterior_mean`."""
        channels, height, width = x.shape[1:]
        frame, blocks = frame_and_blocks(height, width, window, self.rules)
        key_size = channels * frame.height * frame.width
        limit = tile_size(self.memory_budget)
        parts = [part for block in blocks for part in block.split(limit, key_size)]
        tiles = [_Tile(part, x, alpha_bars, frame, limit, whole=window is None) for part in parts]
        images_at_once = max(1, limit // max(tile.numbers_per_image for tile in tiles))
        members = self.dictionary.members(label)
        for _, images in self.dictionary.chunks(members, images_at_once, torch.float64):
            padded = pad(images, frame)
            for tile in tiles:
                tile.add(images, padded)
        if window is None:
            return tiles[0].means().reshape(x.shape)
        mean = torch.empty_like(x).flatten(2)
        for tile in tiles:
            mean[:, :, tile.block.queries] = tile.means().permute(0, 3, 1, 2)
        return mean.view(x.shape)

    def explain(self, window: int | None, dtype: torch.dtype) -> str:
        """See :meth:`Engine.explain`."""
        what = "whole images" if window is None else f"patches of {window} x {window}"
        return f"dense: plain torch on {self.dictionary.device}, {what} side by side, logits in float64"


class _Tile:
    """The queries of one block for a batch, and their sums so far."""

    def __init__(
        self, block: Block, x: Tensor, alpha_bars: list[float], frame: Frame, limit: int, whole: bool
    ):
        self.block, self.frame, self.whole, self.dtype = block, frame, whole, x.dtype
        self.queries = [
            scaled(
                features(pad(sample[None].double(), frame), frame, block.queries), alpha_bar, 1 - alpha_bar
            )
            for sample, alpha_bar in zip(x, alpha_bars, strict=True)
        ]
        numbers = x[0].numel() if whole else x.shape[1]
        self.states: list[SoftmaxMean] = [empty(block.queries.shape, numbers, x.device) for _ in x]
        g, q, size = self.queries[0].shape
        self.keys = block.keys.split(max(1, limit // (g * max(q, size))), dim=1)
        self.numbers_per_image = self.keys[0].numel() * max(q, size)

    def add(self, images: Tensor, padded: Tensor) -> None:
        """Sum over these images' keys."""
        for positions in self.keys:
            patches = features(padded, self.frame, positions)
            values = (patches if self.whole else _centres(images, positions)).to(self.dtype)
            keys = torch.cat([patches, patches.square().sum(-1, keepdim=True)], dim=-1).transpose(1, 2)
            for i, queries in enumerate(self.queries):
                self.states[i] = update(self.states[i], queries @ keys, values)

    def means(self) -> Float[Tensor, "b g q v"]:
        """The posterior means."""
        return torch.stack([finalize(state) for state in self.states]).to(self.dtype)


def _centres(images: Float[Tensor, "n c h w"], positions: Int[Tensor, "g k"]) -> Float[Tensor, "g n*k c"]:
    pixels = images.flatten(2)[:, :, positions]
    return pixels.permute(2, 0, 3, 1).reshape(len(positions), -1, images.shape[1])
