"""The paper's UNet: three scales, residual blocks, no attention (Kamb & Ganguli 2025, appendix C.1)."""

from itertools import pairwise
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor, nn

from patchmosaic.errors import InputError
from patchmosaic.nets.layers import (
    Condition,
    ResidualLayer,
    check_choices,
    convolution,
    per_sample_timestep,
)


class UNet(ModelMixin, ConfigMixin):
    """Down over scales by strided convolutions, up by nearest neighbours, with a skip at each scale.

    Args:
        sample_size: pixels to a side of the training images; others work too, if divisible as often.
        in_channels: channels of the images.
        widths: channels at each scale; the paper's are (64, 128, 256).
        layers: residual convolutions in each block.
        padding: "zeros" or "circular": what convolutions see beyond the image.
        num_class_embeds: classes; None for an unconditional network.
        skip: add the input to the output, as in the ResNet.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 32,
        in_channels: int = 3,
        widths: tuple[int, ...] = (64, 128, 256),
        layers: int = 2,
        padding: str = "zeros",
        num_class_embeds: int | None = None,
        skip: bool = False,
    ):
        super().__init__()
        check_choices(
            padding,
            in_channels=in_channels,
            layers=layers,
            **{f"widths[{i}]": w for i, w in enumerate(widths)},
        )
        width = widths[-1]
        self.condition = Condition(width, num_class_embeds)
        self.first = convolution(in_channels, widths[0], padding)

        def block(channels: int) -> nn.ModuleList:
            return nn.ModuleList(ResidualLayer(channels, width, padding) for _ in range(layers))

        steps = list(pairwise(widths))
        self.down_blocks = nn.ModuleList(block(channels) for channels in widths[:-1])
        self.shrink = nn.ModuleList(convolution(fine, coarse, padding, stride=2) for fine, coarse in steps)
        self.middle = block(widths[-1])
        self.grow = nn.ModuleList(convolution(coarse, fine, padding) for fine, coarse in reversed(steps))
        self.join = nn.ModuleList(nn.Conv2d(2 * fine, fine, 1) for fine, _ in reversed(steps))
        self.up_blocks = nn.ModuleList(block(channels) for channels in reversed(widths[:-1]))
        self.last = convolution(widths[0], in_channels, padding, zero=True)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        class_labels: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DOutput | tuple[Tensor]:
        """As :meth:`patchmosaic.nets.resnet.ResNet.forward`.

        Raises:
            InputError: for images whose sides cannot be halved once per scale.
        """
        factor = 2 ** len(self.shrink)
        if sample.shape[-1] % factor or sample.shape[-2] % factor:
            raise InputError(f"this UNet needs image sides divisible by {factor}: use --size")
        condition = self.condition(per_sample_timestep(timestep, sample), class_labels)
        x, skips = self.first(sample), []
        for block, shrink in zip(self.down_blocks, self.shrink, strict=True):
            x = _through(block, x, condition)
            skips.append(x)
            x = shrink(x)
        x = _through(self.middle, x, condition)
        for grow, join, block in zip(self.grow, self.join, self.up_blocks, strict=True):
            x = grow(nn.functional.interpolate(x, scale_factor=2.0))
            x = join(torch.cat([x, skips.pop()], 1))
            x = _through(block, x, condition)
        x = self.last(nn.functional.silu(x))
        if self.config["skip"]:
            x = x + sample
        return UNet2DOutput(sample=x) if return_dict else (x,)


def _through(block: Any, x: Tensor, condition: Tensor) -> Tensor:
    for layer in block:
        x = layer(x, condition)
    return x
