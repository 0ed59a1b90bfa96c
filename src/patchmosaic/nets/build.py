"""Networks by name, made for images of a shape."""

from collections.abc import Callable
from typing import Any, Protocol

from patchmosaic.errors import InputError
from patchmosaic.nets.layers import PADDINGS


class Choices(Protocol):
    """What can be chosen; None is the network's default."""

    @property
    def network(self) -> str:
        """A name in ``NETWORKS``."""

    @property
    def width(self) -> int | None:
        """Channels inside, at the finest scale."""

    @property
    def layers(self) -> int | None:
        """Residual convolutions, of the UNets in each block."""

    @property
    def padding(self) -> str:
        """What convolutions see beyond the image."""

    @property
    def skip(self) -> bool:
        """Add the input to the output."""


def build(choices: Choices, shape: tuple[int, ...], classes: int | None) -> Any:
    """A new network from torch's global generator.

    Args:
        choices: which one.
        shape: (C, H, W) of the images.
        classes: how many; None for an unconditional network.
    """
    if choices.padding not in PADDINGS:
        raise InputError(f"padding must be one of {', '.join(PADDINGS)}, not {choices.padding!r}")
    if choices.network != "resnet" and (shape[1] % 4 or shape[2] % 4):
        raise InputError(
            f"a UNet halves images twice: sides must be divisible by 4, not {shape[1:]}; use --size"
        )
    common = {"sample_size": shape[1] if shape[1] == shape[2] else shape[1:], "num_class_embeds": classes}
    return NETWORKS[choices.network](choices, common | {"in_channels": shape[0]})


def _resnet(choices: Choices, common: dict[str, Any]) -> Any:
    from patchmosaic.nets.resnet import ResNet

    sizes = {"width": choices.width or 256, "layers": choices.layers or 6}
    return ResNet(**common, **sizes, padding=choices.padding, skip=choices.skip)


def _unet(choices: Choices, common: dict[str, Any]) -> Any:
    from patchmosaic.nets.unet import UNet

    width = choices.width or 64
    sizes = {"widths": (width, 2 * width, 4 * width), "layers": choices.layers or 2}
    return UNet(**common, **sizes, padding=choices.padding, skip=choices.skip)


def _attention_unet(choices: Choices, common: dict[str, Any]) -> Any:
    """The one of diffusers, with self-attention at every scale but the finest."""
    from diffusers import UNet2DModel

    if choices.padding != "zeros" or choices.skip:
        raise InputError(
            "diffusers' UNet2DModel pads with zeros and has no skip: leave out --padding and --skip"
        )
    width = choices.width or 64
    if width % 8:
        raise InputError(f"the attention network needs a width divisible by 8, not {width}")
    return UNet2DModel(
        **common,
        out_channels=common["in_channels"],
        block_out_channels=(width, 2 * width, 4 * width),
        layers_per_block=choices.layers or 2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
        norm_num_groups=8,
    )


NETWORKS: dict[str, Callable[[Choices, dict[str, Any]], Any]] = {
    "resnet": _resnet,
    "unet": _unet,
    "attention-unet": _attention_unet,
}
