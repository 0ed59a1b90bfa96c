"""A machine in the shape of ``UNet2DModel``, for diffusers' pipelines and anyone's loop."""

import os
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.models.unets.unet_2d import UNet2DOutput
from jaxtyping import Float, Int
from torch import Tensor

from patchmosaic import __version__
from patchmosaic.data import DataSettings
from patchmosaic.errors import InputError
from patchmosaic.hub import recipe
from patchmosaic.hub.schedulers import authors_scheduler, expected, level
from patchmosaic.machine import ScoreMachine
from patchmosaic.records import read_json, write_json


class ScoreMachineModel(ModelMixin, ConfigMixin):
    """Predicts what a trained ``UNet2DModel`` would be asked to, in closed form.

    Args:
        machine: whose posterior means it gives.
        scheduler: of diffusers, the one in use: it says which noise level a timestep is, and what is to be predicted;
            None: the authors' schedule, in which timestep k of 1,000 is t = (k + 1) / 1,000. Change it by assigning
            to ``scheduler``; :class:`ScoreMachinePipeline` does so by itself.
        source: where the machine's images come from, for :meth:`save_pretrained`.
    """

    def __init__(self, machine: ScoreMachine, scheduler: Any = None, source: DataSettings | None = None):
        super().__init__()
        self.machine, self.source = machine, source
        self.scheduler = authors_scheduler() if scheduler is None else scheduler
        channels, height, width = machine.dictionary.shape
        labels = machine.dictionary.labels
        self.register_to_config(
            sample_size=height if height == width else (height, width),
            in_channels=channels,
            out_channels=channels,
            num_class_embeds=None if labels is None else int(labels.max()) + 1,
            patchmosaic=__version__,
        )
        self.register_buffer("anchor", torch.zeros(()), persistent=False)  # has a dtype and a device

    @torch.no_grad()
    def forward(
        self,
        sample: Float[Tensor, "b c h w"],
        timestep: Tensor | float,
        class_labels: Int[Tensor, " b"] | int | None = None,
        return_dict: bool = True,
    ) -> UNet2DOutput | tuple[Tensor]:
        """The prediction that the scheduler in use wants, in the dtype and on the device of ``sample``.

        Args:
            sample: noisy pictures as the scheduler hands them over, after its ``scale_model_input``.
            timestep: one for all, or (B,).
            class_labels: (B,), or one for all; None uses every training image.
            return_dict: as in diffusers: else a tuple.

        Raises:
            InputError: as :meth:`ScoreMachine.denoise`; also for timesteps that the scheduler does not have.
        """
        if self.machine.dictionary.device != sample.device:
            self.machine.to(sample.device)
        times = torch.as_tensor(timestep, dtype=torch.float64).flatten().tolist()
        if len(times) not in (1, len(sample)):
            raise InputError(
                f"timestep must be one number or one per picture ({len(sample)}), not {len(times)}"
            )
        levels = [level(self.scheduler, time) for time in times]
        levels = levels * (len(sample) // len(levels))
        x = sample if sample.dtype == torch.float64 else sample.float()
        noisy = x * torch.tensor([one.scale for one in levels]).to(x).view(-1, 1, 1, 1)
        mean = self.machine.denoise(
            noisy, torch.tensor([one.alpha_bar for one in levels]).double(), class_labels
        )
        output = torch.empty_like(mean)
        for i, one in enumerate(zip(levels, noisy, mean, strict=True)):
            output[i] = expected(self.scheduler, *one)
        output = output.to(sample.dtype)
        return UNet2DOutput(sample=output) if return_dict else (output,)

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], include_data: bool = False, **others: Any
    ) -> None:
        """Write the recipe: the machine, where its images are, and their fingerprint.

        Args:
            save_directory: made if missing.
            include_data: also write the images, as bytes where they have at most 256 levels.
            others: of diffusers, which choose how weights are written: there are none.

        Raises:
            InputError: without ``include_data`` where nobody said where the images come from, or where they come from
                gives others; to push to the Hub.
        """
        refuse_pushing(others)
        if self.source is None and not include_data:
            raise InputError(
                "nobody said where this machine's images come from: give ScoreMachineModel(source=DataSettings(...)), "
                "or save with include_data=True"
            )
        folder = Path(save_directory)
        settled = {name: value for name, value in dict(self.config).items() if not name.startswith("_")}
        described = recipe.describe(self.machine, self.source)
        if include_data:
            recipe.write_images(self.machine.dictionary, folder / recipe.IMAGES)
        elif self.source is not None:
            recipe.check_source(described, self.source)
            (folder / recipe.IMAGES).unlink(missing_ok=True)  # of a machine saved there before
        write_json(
            folder / self.config_name, {"_class_name": type(self).__name__, **settled, "machine": described}
        )

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        scheduler: Any = None,
        torch_dtype: torch.dtype | None = None,
        subfolder: str | None = None,
        **_: Any,
    ) -> "ScoreMachineModel":
        """Read what :meth:`save_pretrained` wrote, and find the images again.

        Args:
            pretrained_model_name_or_path: a folder.
            scheduler: as for the class.
            torch_dtype: in which a pipeline draws its noise; float32 without.
            subfolder: of the folder, where the model is; "unet" in that of a pipeline.
            _: other options of diffusers, which choose how weights are read: there are none.

        Raises:
            InputError: no such folder, or other images than those it was saved with; the message says what differs.
        """
        folder = Path(pretrained_model_name_or_path, subfolder or "")
        config = read_json(folder / cls.config_name)
        if not isinstance(config, dict) or config.get("_class_name") != cls.__name__:
            raise InputError(f"{folder} holds no score machine: give a folder made by its save_pretrained")
        machine, source = recipe.build(config["machine"], folder)
        model = cls(machine, scheduler, source)
        return model if torch_dtype is None else model.to(torch_dtype)


def refuse_pushing(options: dict[str, Any]) -> None:
    """InputError where something is to go to the Hub."""
    if options.get("push_to_hub"):
        raise InputError("nothing is pushed to the Hub: save to a folder, and upload that")
