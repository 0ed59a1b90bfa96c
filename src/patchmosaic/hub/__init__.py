"""At home in diffusers: machines as models, a pipeline, and the authors' schedule as a scheduler."""

try:
    import diffusers as _diffusers  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "patchmosaic.hub needs diffusers: pip install diffusers", name=error.name
    ) from None

from patchmosaic.hub.model import ScoreMachineModel
from patchmosaic.hub.pipeline import ScoreMachinePipeline
from patchmosaic.hub.schedulers import authors_scheduler

__all__ = ["ScoreMachineModel", "ScoreMachinePipeline", "authors_scheduler"]
