"""How the sum is carried out: engines differ in time and memory, never in the answer."""

from patchmosaic.engines.base import Certified, Engine
from patchmosaic.engines.box import BoxEngine
from patchmosaic.engines.dense import DenseEngine
from patchmosaic.engines.native import library
from patchmosaic.engines.screened import ScreenedEngine
from patchmosaic.errors import InputError

ENGINES: dict[str, type[Engine]] = {"dense": DenseEngine, "box": BoxEngine}


def choose(name: str) -> type[Engine]:
    """The engine called ``name``; "auto" is "box" where it was compiled, else "dense"."""
    if name == "auto":
        return DenseEngine if library() is None else BoxEngine
    if name not in ENGINES:
        raise InputError(f"engine must be one of auto, {', '.join(ENGINES)}, not {name!r}")
    return ENGINES[name]


__all__ = ["ENGINES", "BoxEngine", "Certified", "DenseEngine", "Engine", "ScreenedEngine", "choose"]
