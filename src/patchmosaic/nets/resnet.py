"""The paper's ResNet: 3 x 3 convolutions throughout (Kamb & Ganguli 2025, appendix C.1)."""

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor, nn

from patchmosaic.nets.layers import (
    Condition,
    ResidualLayer,
    check_choices,
    convolution,
    per_sample_timestep,
)


class ResNet(ModelMixin, ConfigMixin):
    """One convolution up, residual convolutions, one down: a pixel of the output sees 2 (layers + 2) + 1.

    Args:
        sample_size: pixels to a side of the training images; others work too.
        in_channels: channels of the images.
        width: channels inside; the paper's is 256.
        layers: residual convolutions; the paper's are 6, so that a pixel sees 17 x 17.
        padding: "zeros" or "circular": what convolutions see beyond the image.
        num_class_embeds: classes; None for an unconditional network.
        skip: add the input to the output. At high noise the two hardly differ, and a network that has only the
            difference to learn is good sooner. The paper's has no such path.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 32,
        in_channels: int = 3,
        width: int = 256,
        layers: int = 6,
        padding: str = "zeros",
        num_class_embeds: int | None = None,
        skip: bool = False,
    ):
        super().__init__()
        check_choices(padding, in_channels=in_channels, width=width, layers=layers)
        self.condition = Condition(width, num_class_embeds)
        self.up = convolution(in_channels, width, padding)
        self.residual = nn.ModuleList(ResidualLayer(width, width, padding) for _ in range(layers))
        self.down = convolution(width, in_channels, padding, zero=True)

    @property
    def receptive_field(self) -> int:
        """The side of the square that a pixel of the output sees."""
        return 2 * (len(self.residual) + 2) + 1

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        class_labels: Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DOutput | tuple[Tensor]:
        """The unit noise in ``sample``, as diffusers' ``UNet2DModel`` gives it.

        Args:
            sample: noisy images (B, C, H, W).
            timestep: index of the training step, one or one per image; may lie between two.
            class_labels: (B,) classes, for a conditional network.
            return_dict: False for a tuple.
        """
        condition = self.condition(per_sample_timestep(timestep, sample), class_labels)
        x = self.up(sample)
        for layer in self.residual:
            x = layer(x, condition)
        x = self.down(nn.functional.silu(x))
        if self.config["skip"]:
            x = x + sample
        return UNet2DOutput(sample=x) if return_dict else (x,)
