"""The compiled part: finding the library built for this processor, calling it, and threads to call it from."""

import ctypes
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from patchmosaic.errors import InputError

# Built by hatch_build.py from box.cpp, screen.cpp and rings.cpp; the best one that the processor can run is used.
_BUILDS = {"AVX512": ("avx512", "avx2", "base"), "AVX2": ("avx2", "base")}


class Trail(ctypes.Structure):
    """What box.cpp finds out about the weights of a noisy image."""

    _fields_ = [
        ("k", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("enough", "share", "limit", "kept", "by_image")),
    ]


class Job(ctypes.Structure):
    """What box.cpp is asked, and where it keeps its sums; described there."""

    _fields_ = [
        *(
            (name, ctypes.c_int32)
            for name in (
                *("symmetry", "wraps", "height", "width", "channels", "windows"),
                *("first_shift", "row_shifts", "batch", "parts", "threads"),
            )
        ),
        ("skip", ctypes.c_float),
        *((name, ctypes.c_double) for name in ("max_error", "offset", "slope", "lowest", "highest")),
        *((name, ctypes.c_int64) for name in ("images", "items")),
        *(
            (name, ctypes.c_void_p)
            for name in (
                *("radii", "codes", "levels", "x", "noise"),
                *("pixels", "moved", "limits", "expected", "reference", "total", "weighted"),
                *("queued", "waiting", "trails", "scratch"),
            )
        ),
    ]


class Patches(ctypes.Structure):
    """Training images as screen.cpp reads them."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("codes", "levels", "offsets", "centre")),
        *((name, ctypes.c_int32) for name in ("channels", "numbers")),
    ]


class Tree(ctypes.Structure):
    """Patches sorted by nearness, in boxes."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("members", "sizes", "leaf_boxes", "group_boxes")),
        ("groups", ctypes.c_int64),
    ]


class Queries(ctypes.Structure):
    """Noisy windows."""

    _fields_ = [
        *(
            (name, ctypes.c_void_p)
            for name in ("numbers", "rotated", "precision", "safe_precision", "reference")
        ),
        ("count", ctypes.c_int64),
    ]


class RingQuery(ctypes.Structure):
    """A pixel and the keys that may stand in for it, as rings.cpp reads them."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("windows", "levels", "channels")),
        *((name, ctypes.c_void_p) for name in ("key_counts", "keys", "parents", "step_counts", "steps")),
        *((name, ctypes.c_void_p) for name in ("clean", "eta", "slopes")),
    ]


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The compiled library, or None where the package was installed without one."""
    found = builds()
    return load(found[0]) if found else None


def compiled() -> ctypes.CDLL:
    """The compiled library, which must be there."""
    found = library()
    if found is None:
        raise InputError(
            "this installation has no compiled engine (no C++ compiler was found): use engine='dense'"
        )
    return found


@lru_cache(maxsize=1)
def pool(threads: int) -> ThreadPoolExecutor:
    """Threads that stay for the next call."""
    return ThreadPoolExecutor(threads, thread_name_prefix="patchmosaic")


if sys.platform != "win32":  # threads do not survive a fork
    os.register_at_fork(after_in_child=pool.cache_clear)


def in_parallel(work: Callable[[int], object], count: int) -> None:
    """Do ``work(i)`` for i below ``count`` in threads."""
    for _ in pool(torch.get_num_threads()).map(work, range(count)):
        pass


def aligned(size: int) -> UInt8[np.ndarray, " size"]:
    """Bytes aligned to 64, in huge pages where there are any: numpy asks for them."""
    memory = np.empty(size + 64, np.uint8)
    return memory[-memory.ctypes.data % 64 :][:size]


def builds() -> list[Path]:
    """The builds at hand that this processor can run, the fastest first."""
    names = _BUILDS.get(torch.backends.cpu.get_cpu_capability(), ("base",))
    paths = [Path(__file__).with_name(f"_box_{name}.so") for name in names]
    return [path for path in paths if path.exists()]


def load(path: str | Path) -> ctypes.CDLL:
    """Load one build."""
    try:
        return _declare(ctypes.CDLL(str(path)))
    except AttributeError:
        raise InputError(
            f"{path} is older than this code: install patchmosaic again (pip install -e .)"
        ) from None


def _declare(found: ctypes.CDLL) -> ctypes.CDLL:
    c_int, c_int64, pointer = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
    c_float = ctypes.c_float
    found.box_lanes.restype = c_int  # images side by side
    found.box_side.restype = c_int  # blocks come in multiples of these
    found.box_groups.restype = found.box_settled.restype = c_int
    found.box_groups.argtypes = [c_int]  # symmetry; gives the blocks in an item
    found.box_settled.argtypes = [
        c_int
    ]  # symmetry; gives the items of a row shift that are always summed together
    found.box_place.restype = c_int64  # bytes
    found.box_place.argtypes = [ctypes.POINTER(Job), pointer]  # memory, or None
    found.box_queue.restype = c_int  # patches that may wait at a pixel
    found.box_sums.restype = found.box_merge.restype = found.box_aim.restype = None
    found.box_sums.argtypes = [ctypes.POINTER(Job), *[c_int64] * 2]  # from, to
    found.box_merge.argtypes = [ctypes.POINTER(Job), pointer]  # means, or None
    found.box_aim.argtypes = [ctypes.POINTER(Job), *[pointer] * 2]  # share, enough
    found.box_exponentials.restype = None
    found.box_exponentials.argtypes = [*[pointer] * 2, *[c_int64] * 2, c_int]  # out, count, rounds, threads
    patches, tree, queries = (ctypes.POINTER(kind) for kind in (Patches, Tree, Queries))
    for size in (found.screen_leaf, found.screen_group, found.screen_lanes):
        size.restype = c_int  # patches in a leaf and in a group, groups side by side
    for name, arguments in {
        "rotate": [patches, pointer, c_int64, *[pointer] * 2],  # pixels, count, rotation, out
        "route": [patches, pointer, c_int64, *[pointer] * 3, c_int, pointer],  # axes, cuts, depth, out
        "arrange": [*[pointer] * 2, c_int64, *[pointer] * 2],  # pixels, buckets, count, starts, out
        "build": [patches, pointer, c_int64, pointer, c_float, c_int64, tree],  # rotation, wider, first
        "nearest": [patches, tree, queries, *[c_int64] * 2, pointer],  # from, to, out
        "sum": [patches, pointer, c_int64, queries, *[c_int64] * 2, *[pointer] * 2],  # total, weighted
        "tally": [patches, tree, queries, *[pointer] * 2, *[c_int] * 4, *[pointer] * 2],
        "visit": [patches, tree, queries, *[pointer] * 3, *[c_int] * 4, *[pointer] * 3],
        "closest": [patches, tree, queries, pointer, *[c_int] * 3, *[pointer] * 2],  # hidden, span, worker
    }.items():
        function = getattr(found, f"screen_{name}")
        function.restype, function.argtypes = None, arguments
    found.ring_lanes.restype = c_int  # images side by side
    found.ring_sums.restype = None
    found.ring_sums.argtypes = [
        ctypes.POINTER(RingQuery),
        pointer,  # images
        *[c_int64] * 2,  # blocks, size
        ctypes.c_int32,  # lanes_in_last
        *[pointer] * 3,  # scratch, reference, sums
    ]
    return found
