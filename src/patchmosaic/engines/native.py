"""The compiled part: finding the library built for this processor, and calling it."""

import ctypes
from functools import lru_cache
from pathlib import Path

import torch

# Built by hatch_build.py from box.cpp; the best one that the processor can run is used.
_BUILDS = {"AVX512": ("avx512", "avx2", "base"), "AVX2": ("avx2", "base")}


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The compiled library, or None where the package was installed without one."""
    found = builds()
    return load(found[0]) if found else None


def builds() -> list[Path]:
    """The builds at hand that this processor can run, the fastest first."""
    names = _BUILDS.get(torch.backends.cpu.get_cpu_capability(), ("base",))
    paths = [Path(__file__).with_name(f"_box_{name}.so") for name in names]
    return [path for path in paths if path.exists()]


def load(path: str | Path) -> ctypes.CDLL:
    """Load one build."""
    return _declare(ctypes.CDLL(str(path)))


def _declare(found: ctypes.CDLL) -> ctypes.CDLL:
    c_int, c_int64, pointer = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
    c_float, c_double = ctypes.c_float, ctypes.c_double
    found.box_lanes.restype = c_int  # images side by side
    found.box_side.restype = c_int  # blocks in an item of a machine without shifts
    found.box_scratch.restype = c_int64
    found.box_scratch.argtypes = [c_int] * 5  # height, width, channels, windows, radius
    found.box_sums.restype = None
    found.box_sums.argtypes = [
        *[c_int] * 6,  # symmetry, wraps, height, width, channels, windows
        *[pointer] * 3,  # radii, codes, levels
        *[c_double] * 2,  # offset, slope
        c_int64,  # images
        c_int,  # batch
        *[pointer] * 5,  # pixels, moved, signal, precision, trust
        c_float,  # skip
        *[c_int] * 2,  # first_shift, row_shifts
        *[c_int64] * 2,  # item_from, item_to
        *[pointer] * 4,  # scratch, reference, total, weighted
    ]
    return found
