"""How the sum is carried out: engines differ in time and memory, never in the answer."""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch

from patchmosaic.engines.base import Certified, Engine
from patchmosaic.engines.box import BoxEngine
from patchmosaic.engines.dense import DenseEngine
from patchmosaic.engines.native import library
from patchmosaic.engines.screened import ScreenedEngine
from patchmosaic.engines.trace import Traced
from patchmosaic.errors import InputError

ENGINES: dict[str, type[Engine]] = {"dense": DenseEngine, "box": BoxEngine}


def choose(name: str, device: torch.device | None = None) -> type[Engine]:
    """The engine called ``name``; "auto" is the fastest that can run on ``device``, the CPU by default.

    That is "triton" on a CUDA device with Triton 3 or newer, "box" on a CPU where it was compiled, else "dense".
    """
    if name == "auto" and device is not None and device.type != "cpu":
        name = "triton" if device.type == "cuda" and _has_triton() else "dense"
    if name == "triton":
        return _triton_engine()
    if name == "auto":
        return DenseEngine if library() is None else BoxEngine
    if name not in ENGINES:
        raise InputError(f"engine must be one of auto, {', '.join(ENGINES)}, triton, not {name!r}")
    return ENGINES[name]


def _has_triton() -> bool:
    """Whether the kernels can be compiled: torch before 2.4 brings a Triton that is too old."""
    try:
        return find_spec("triton") is not None and int(version("triton").split(".")[0]) >= 3
    except PackageNotFoundError:  # it came under another name
        return True


def _triton_engine() -> type[Engine]:
    """Imported when asked for: Triton takes a second to import."""
    if not _has_triton():
        raise InputError(
            "there is no Triton 3 or newer: pip install 'patchmosaic[gpu]', or use engine='dense'"
        )
    from patchmosaic.engines.gpu import TritonEngine

    return TritonEngine


__all__ = ["ENGINES", "BoxEngine", "Certified", "DenseEngine", "Engine", "ScreenedEngine", "Traced", "choose"]
