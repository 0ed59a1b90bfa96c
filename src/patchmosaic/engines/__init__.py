"""How the sum is carried out: engines differ in time and memory, never in the answer."""

from patchmosaic.engines.base import Engine
from patchmosaic.engines.dense import DenseEngine
from patchmosaic.errors import InputError

ENGINES: dict[str, type[Engine]] = {"dense": DenseEngine}


def choose(name: str) -> type[Engine]:
    """The engine called ``name``; "auto" is the best one for this machine."""
    if name == "auto":
        return DenseEngine
    if name not in ENGINES:
        raise InputError(f"engine must be one of auto, {', '.join(ENGINES)}, not {name!r}")
    return ENGINES[name]


__all__ = ["ENGINES", "DenseEngine", "Engine", "choose"]
