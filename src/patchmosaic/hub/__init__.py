"""At home in diffusers: machines as models, a pipeline, and the authors' schedule as a scheduler."""

from patchmosaic.errors import needed_by

with needed_by("patchmosaic.hub"):
    from patchmosaic.hub.model import ScoreMachineModel
    from patchmosaic.hub.pipeline import ScoreMachinePipeline
    from patchmosaic.hub.schedulers import authors_scheduler

__all__ = ["ScoreMachineModel", "ScoreMachinePipeline", "authors_scheduler"]
