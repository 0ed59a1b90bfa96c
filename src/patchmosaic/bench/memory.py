"""Peak memory of one contestant, measured in a process of its own."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from patchmosaic.bench.problem import Problem
from patchmosaic.errors import InputError
from patchmosaic.records import read_tensors, write_tensors

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_memory(problem: Problem, name: str, chunk: int) -> int:
    """Bytes held at the peak of one call, above the interpreter, the libraries and the images themselves.

    Args:
        problem: with the training images that are used.
        name: the contestant.
        chunk: images at a time, where it works in chunks.
    """
    import torch

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problem.safetensors"
        settings = {"alpha_bar": repr(problem.alpha_bar), "window": str(problem.window)}
        write_tensors(path, {"pixels": problem.pixels, "x": problem.x}, machine=problem.machine, **settings)
        command = [sys.executable, "-m", __name__, str(path), name, str(chunk), str(torch.get_num_threads())]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it was stopped"])[-1]
        raise InputError(f"the memory of {name} could not be measured: {reason}")
    return int(done.stdout.split()[-1])


def _measure(path: str, name: str, chunk: str, threads: str) -> int:
    import torch

    from patchmosaic.bench.contestants import contestant

    torch.set_num_threads(int(threads))
    tensors, metadata = read_tensors(path)
    problem = Problem.of(
        **tensors,
        alpha_bar=float(metadata["alpha_bar"]),
        window=int(metadata["window"]),
        machine=metadata["machine"],
    )
    competitor = contestant(name)
    corner = problem._replace(
        **{name: getattr(problem, name)[:1, :, :4, :4] for name in ("pixels", "images", "x")}
    )
    competitor.call(corner, 1)()  # libraries and threads are no part of the work
    before = _restarted_peak()
    competitor.call(problem, int(chunk))()
    return max(0, _peak() - before)


def _restarted_peak() -> int:
    """Start the peak anew from what is held now, where the system can (Linux)."""
    if os.access(_CLEAR, os.W_OK):
        _CLEAR.write_text("5")
    return _peak()


def _peak() -> int:
    """The most bytes held at once. On Linux from /proc: ru_maxrss there starts from the parent's peak."""
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource  # not on every system

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    print(_measure(*sys.argv[1:]))
