"""A trained network as a denoiser, and folders that hold one."""

import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Any, final

from jaxtyping import Float, Int
from torch import Tensor, nn

from patchmosaic.data import Dataset, DataSettings
from patchmosaic.denoiser import AlphaBar, Denoiser, FunctionDenoiser
from patchmosaic.errors import InputError, needed_by
from patchmosaic.locality import LocalitySchedule
from patchmosaic.records import read_json
from patchmosaic.schedule import ArraySchedule, CosineSchedule, Schedule, check_schedule

BUNDLED = Path(__file__).with_name("digits")
WEIGHTS = "diffusion_pytorch_model.safetensors"
TRAINING_STEPS = 1000  # time step k of our networks is t = (k + 1) / 1000
_PREDICTIONS = {"epsilon": "epsilon", "sample": "x0", "v_prediction": "v"}  # diffusers' names


@final
class Network(Denoiser):
    """A diffusers-style model of noise, asked by alpha_bar.

    Args:
        model: called as ``model(x, timestep, class_labels).sample``; UNet2DModel, or one of ours.
        schedule: its noise schedule: time step k of ``training_steps`` is t = (k + 1) / training_steps.
        predicts: "epsilon", "x0" or "v".
        training_steps: see ``schedule``.
        folder: where it was loaded from, if it was.

    Attributes:
        shape: (C, H, W) of the images it was made for.
        classes: how many classes it can be asked for; None: unconditional.

    Raises:
        InputError: where the model does not say how large its images are, or ``schedule`` or ``predicts`` is something
            else.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule | None = None,
        predicts: str = "epsilon",
        training_steps: int = TRAINING_STEPS,
        folder: Path | None = None,
    ):
        self.model = model.eval()
        self.schedule = schedule or CosineSchedule()
        check_schedule(self.schedule)
        self.training_steps, self.folder, self.predicts = training_steps, folder, predicts
        self._denoiser = FunctionDenoiser(self._call, predicts)
        config: Any = model.config
        size = config["sample_size"]
        sides = size if isinstance(size, list | tuple) else (size, size)
        if [type(side) for side in sides] != [int, int]:
            where = "its configuration" if folder is None else folder / "config.json"
            raise InputError(
                f"the network does not say how large its images are: set sample_size in {where} to their side in pixels"
            )
        height, width = sides
        self.shape: tuple[int, int, int] = (config["in_channels"], height, width)
        self.classes: int | None = config.get("num_class_embeds")

    def denoise(
        self, x: Float[Tensor, "b c h w"], alpha_bar: AlphaBar, labels: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b c h w"]:
        """See :meth:`Denoiser.denoise`.

        Raises:
            InputError: for images of other channels, labels that do not fit the network, or NaN from it.
        """
        return self._denoiser.denoise(x, alpha_bar, labels)

    def output(
        self, x: Float[Tensor, "b c h w"], alpha_bar: AlphaBar, labels: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b c h w"]:
        """The network's own output with its graph, for derivatives with respect to ``x``; errors of :meth:`denoise`."""
        return self._denoiser.output(x, alpha_bar, labels)

    def _call(self, x: Tensor, alpha_bar: Tensor, labels: Tensor | None) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.shape[0]:
            raise InputError(
                f"this network takes images of {self.shape[0]} channels, not shape {tuple(x.shape)}"
            )
        if (labels is None) != (self.classes is None):
            raise InputError(
                f"this network draws one of {self.classes} classes: give labels"
                if labels is None
                else "this network has no classes: leave out the labels"
            )
        if labels is not None and not bool(((labels >= 0) & (labels < (self.classes or 0))).all()):
            raise InputError(f"labels must be 0 to {(self.classes or 0) - 1} for this network")
        steps = self.schedule.time(alpha_bar) * self.training_steps - 1
        parameter = next(self.model.parameters())
        return self.model(
            x.to(parameter), steps.to(parameter), None if labels is None else labels.to(parameter.device)
        ).sample.to(x)

    @property
    def receptive_field(self) -> int | None:
        """The side of the square that a pixel sees, where the network knows."""
        return getattr(self.model, "receptive_field", None)

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of its weights."""
        digest = hashlib.sha256()
        for name, weight in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(weight.detach().cpu().contiguous().float().numpy().tobytes())
        return digest.hexdigest()

    def recipe(self) -> dict[str, Any] | None:
        """The ``run.json`` beside it: the record of its training, if it was trained by ``patchmosaic train``."""
        path = None if self.folder is None else self.folder / "run.json"
        return read_json(path) if path is not None and path.exists() else None

    def data(self) -> DataSettings | None:
        """What it was trained on; None where no ``run.json``, or one that is not of ``patchmosaic train``, says so."""
        found = self._recorded("config", "data")
        try:
            return DataSettings.from_record(found)
        except (KeyError, TypeError):
            return None

    def trained_on(self, data: Dataset) -> bool:
        """Whether the record of its training names exactly these images."""
        return self._recorded("data", "fingerprint") == data.fingerprint

    def _recorded(self, section: str, name: str) -> Any:
        """From :meth:`recipe`; None where it does not have that."""
        try:
            return (self.recipe() or {})[section][name]
        except (InputError, KeyError, TypeError):
            return None

    def scales(self, machine: str) -> LocalitySchedule | None:
        """The windows calibrated for a machine, if ``scales/MACHINE.json`` lies in its folder and can be read."""
        path = None if self.folder is None else self.folder / "scales" / f"{machine}.json"
        return LocalitySchedule.load(path) if path is not None and path.exists() else None


def load_network(path: str | Path | None = None, device: str = "cpu") -> Network:
    """A network from a folder.

    Args:
        path: what ``patchmosaic train`` made, or a ``UNet2DModel`` or a pipeline with one as saved by diffusers;
            None for the bundled one, trained on scikit-learn's digits. A scheduler saved with it gives its noise
            levels; without one they are the paper's cosine.
        device: where to put it.

    Raises:
        InputError: for a folder that holds no such network, or damaged files.
    """
    folder, place = _find(BUNDLED if path is None else Path(path))
    if not (place / "config.json").exists():
        raise InputError(
            f"{folder} holds no network: give a folder with config.json, as train or diffusers save it"
        )
    config = read_json(place / "config.json")
    name = config.get("_class_name") if isinstance(config, dict) else None
    kinds = model_kinds()
    if name not in kinds:
        raise InputError(
            f"{place} holds {name or 'a network without a name'}, and not one of {', '.join(kinds)}"
        )
    if not any(path.is_file() for path in place.glob("*.safetensors")):
        raise InputError(f"{place} holds no weights: put {WEIGHTS} there, as train or diffusers save it")
    try:
        model = kinds[name].from_pretrained(place, use_safetensors=True, low_cpu_mem_usage=False)
    except InputError:
        raise
    except Exception as error:  # what diffusers raises depends on what is wrong
        reason = " ".join(str(error).split())
        raise InputError(
            f"cannot load the network in {place}: its files are damaged or do not fit together; "
            f"save or copy them again ({reason[:200]})"
        ) from None
    schedule, predicts, steps = _scheduler(folder, place)
    return Network(model.to(device), schedule, predicts, steps, place)


def holds_network(path: Path) -> bool:
    """Whether a folder is of a network, by its files; :func:`load_network` tells whether it can be used."""
    return any((_find(path)[1] / name).exists() for name in ("config.json", WEIGHTS))


def _find(folder: Path) -> tuple[Path, Path]:
    """Where the run folder of a training, or a pipeline, keeps its network; and the network itself."""
    folder = folder / "network" if (folder / "network").is_dir() else folder
    return folder, folder / "unet" if (folder / "unet" / "config.json").exists() else folder


def save_network(model: Any, folder: Path) -> None:
    """Write weights, configuration and the noise schedule of one of our trainings, as diffusers reads them."""
    from diffusers import DDPMScheduler

    model.save_pretrained(folder, safe_serialization=True)
    alpha_bars = [1.0, *(CosineSchedule().alpha_bar((k + 1) / TRAINING_STEPS) for k in range(TRAINING_STEPS))]
    betas = [1 - b / a for a, b in pairwise(alpha_bars)]
    scheduler: Any = DDPMScheduler(num_train_timesteps=TRAINING_STEPS, trained_betas=betas, clip_sample=False)
    scheduler.save_pretrained(folder)


def model_kinds() -> dict[str, Any]:
    """The classes that can be trained and loaded, by name."""
    with needed_by("a network"):
        from diffusers import UNet2DModel

        from patchmosaic.nets.resnet import ResNet
        from patchmosaic.nets.unet import UNet

    return {"ResNet": ResNet, "UNet": UNet, "UNet2DModel": UNet2DModel}


def _scheduler(folder: Path, place: Path) -> tuple[Schedule, str, int]:
    from diffusers import DDPMScheduler

    for path in (place / "scheduler_config.json", folder / "scheduler" / "scheduler_config.json"):
        if path.exists():
            config = read_json(path)
            try:
                if not isinstance(config, dict):
                    raise TypeError("it is no dictionary")
                scheduler = DDPMScheduler.from_config(config)
                predicts = _PREDICTIONS[scheduler.config["prediction_type"]]
            except (TypeError, ValueError, KeyError, NotImplementedError) as error:
                raise InputError(f"cannot use the noise schedule in {path}: {error}") from None
            return ArraySchedule(scheduler.alphas_cumprod), predicts, len(scheduler.alphas_cumprod)
    return CosineSchedule(), "epsilon", TRAINING_STEPS
