"""From seeds and classes to pictures, as diffusers' pipelines do it."""

import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, ImagePipelineOutput
from torch import Tensor

from patchmosaic.errors import InputError, check_count
from patchmosaic.hub.model import ScoreMachineModel, refuse_pushing
from patchmosaic.hub.schedulers import authors_scheduler, check_scheduler
from patchmosaic.machine import ScoreMachine
from patchmosaic.records import read_json, write_json
from patchmosaic.sampling import draw_noise, generators

OUTPUT_TYPES = ("pil", "np", "pt")


class ScoreMachinePipeline(DiffusionPipeline):
    """Draws with a score machine and any scheduler of diffusers that has alphas_cumprod or sigmas.

    Args:
        unet: a machine, or one as a model.
        scheduler: None: the authors' schedule.
    """

    unet: ScoreMachineModel
    scheduler: Any

    def __init__(self, unet: ScoreMachineModel | ScoreMachine, scheduler: Any = None):
        super().__init__()
        model = ScoreMachineModel(unet) if isinstance(unet, ScoreMachine) else unet
        self.register_modules(unet=model, scheduler=authors_scheduler() if scheduler is None else scheduler)

    @torch.no_grad()
    def __call__(
        self,
        seeds: int | Sequence[int] = 0,
        class_labels: int | Sequence[int] | None = None,
        num_inference_steps: int = 20,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, Tensor, dict[str, Tensor]], dict[str, Tensor]]
        | None = None,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draw one picture for each seed: the same in any batch.

        Args:
            seeds: one, or several, each from 0 to 2^32 - 1.
            class_labels: one for all, or one per seed; None uses every training image.
            num_inference_steps: of the scheduler; the authors' takes numbers that divide its training steps.
            output_type: "pil", "np" (B, H, W, C) in [0, 1], or "pt" (B, C, H, W) in [0, 1].
            return_dict: else a tuple.
            callback_on_step_end: called as in diffusers with the pipeline, the step's number, its timestep, and
                {"latents": the noisy pictures after it}; what it returns under "latents" takes their place.

        Raises:
            InputError: unusable seeds, labels, steps or output type, or a scheduler that predicts flows.
        """
        if output_type not in OUTPUT_TYPES:
            raise InputError(f"output_type must be one of {', '.join(OUTPUT_TYPES)}, not {output_type!r}")
        check_scheduler(self.scheduler)
        chosen = [int(seeds)] if isinstance(seeds, int | np.integer) else list(seeds)
        rngs = generators(chosen)
        labels = _labels(class_labels, len(chosen))
        self._set_timesteps(num_inference_steps)
        shape = self.unet.machine.dictionary.shape
        dtype = torch.float64 if self.unet.dtype == torch.float64 else torch.float32
        x = draw_noise(rngs, shape, dtype).to(self.unet.device) * float(self.scheduler.init_noise_sigma)
        self.unet.scheduler = self.scheduler
        more = self._step_options(rngs)
        for i, t in enumerate(self.progress_bar(self.scheduler.timesteps)):
            predicted = self.unet(self.scheduler.scale_model_input(x, t), t, labels).sample
            x = self.scheduler.step(predicted, t, x, **more).prev_sample
            if callback_on_step_end is not None:
                x = callback_on_step_end(self, i, t, {"latents": x}).get("latents", x)
        images = (x.float() / 2 + 0.5).clamp(0, 1)
        drawn: Any = images if output_type == "pt" else images.cpu().permute(0, 2, 3, 1).numpy()
        if output_type == "pil":
            drawn = self.numpy_to_pil(drawn)
        return ImagePipelineOutput(images=drawn) if return_dict else (drawn,)

    def _set_timesteps(self, steps: int) -> None:
        count = self.scheduler.config.num_train_timesteps
        check_count("num_inference_steps", steps)
        if (
            self.scheduler.config.get("timestep_spacing") == "trailing"
            and isinstance(self.scheduler, DDIMScheduler)
            and count % steps
        ):
            raise InputError(
                f"num_inference_steps must divide the scheduler's {count} training steps, and {steps} does not: "
                f"use authors_scheduler(steps={steps})"
            )
        self.scheduler.set_timesteps(steps)

    def _step_options(self, rngs: list[torch.Generator]) -> dict[str, Any]:
        """A generator for each picture, where a scheduler draws noise."""
        known = inspect.signature(self.scheduler.step).parameters
        return {"generator": rngs if len(rngs) > 1 else rngs[0]} if "generator" in known else {}

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], include_data: bool = False, **others: Any
    ) -> None:
        """Write the recipe and the scheduler; see :meth:`ScoreMachineModel.save_pretrained`."""
        refuse_pushing(others)
        folder = Path(save_directory)
        self.unet.save_pretrained(folder / "unet", include_data)
        self.scheduler.save_pretrained(folder / "scheduler")
        index = {
            "_class_name": type(self).__name__,
            "scheduler": ["diffusers", type(self.scheduler).__name__],
        }
        kind = [ScoreMachineModel.__module__, ScoreMachineModel.__name__]  # where diffusers finds it
        write_json(folder / "model_index.json", {**index, "unet": kind})

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], scheduler: Any = None, **options: Any
    ) -> "ScoreMachinePipeline":
        """Read what :meth:`save_pretrained` wrote, or another scheduler instead of the one that was saved.

        Other options and errors are those of :meth:`ScoreMachineModel.from_pretrained`.
        """
        import diffusers

        folder = Path(pretrained_model_name_or_path)
        index = read_json(folder / "model_index.json")
        name = index.get("scheduler", ["", ""])[1] if isinstance(index, dict) else ""
        if not name.endswith("Scheduler") or not hasattr(diffusers, name):
            raise InputError(
                f"{folder} holds no pipeline of a score machine: save one with its save_pretrained"
            )
        if scheduler is None:
            scheduler = getattr(diffusers, name).from_pretrained(folder / "scheduler")
        return cls(ScoreMachineModel.from_pretrained(folder / "unet", **options), scheduler)


def _labels(labels: int | Sequence[int] | None, count: int) -> Tensor | None:
    if labels is None:
        return None
    each = [labels] * count if isinstance(labels, int | np.integer) else list(labels)
    if len(each) != count:
        raise InputError(f"class_labels must be one number or one per seed ({count}), not {len(each)}")
    return torch.tensor([check_count("a class label", label, 0) for label in each])
