"""Time of all windows of the boundary-broken machine in one pass, against the smallest alone and one after the other.

    python benchmarks/windows_together.py cifar10-train.parquet mnist-train.parquet

Calls take turns, after one of each that is not counted; of each the fastest is printed.
"""

import argparse
import time
from collections.abc import Callable

import torch
from script import run

import patchmosaic as pm
from patchmosaic.errors import check_count

WINDOWS = range(3, 18, 2)
LEVELS = (0.05, 0.2, 0.5, 0.95)


def measured(
    images: torch.Tensor, x: torch.Tensor, alpha_bar: float, repeats: int
) -> tuple[list[float], float]:
    """Milliseconds of P = 3 alone, of all windows in one pass and one after the other, and how far these are apart."""
    machines = [pm.presets.boundary_broken(images, window) for window in WINDOWS]
    works: list[Callable[[], torch.Tensor]] = [
        lambda: machines[0].denoise(x, alpha_bar),
        lambda: machines[0].denoise_windows(x, alpha_bar, WINDOWS),
        lambda: torch.stack([machine.denoise(x, alpha_bar) for machine in machines]),
    ]
    _, together, apart = (work() for work in works)
    best = [float("inf")] * len(works)
    for _ in range(repeats):
        for i, work in enumerate(works):
            start = time.perf_counter()
            work()
            best[i] = min(best[i], 1e3 * (time.perf_counter() - start))
    return best, float((together - apart).abs().max())


def main() -> None:
    """Print a line for every data set and noise level."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+", help="what patchmosaic.load_dataset reads")
    parser.add_argument("--count", type=int, default=500, help="training images (default: 500)")
    parser.add_argument("--size", type=int, default=32, help="pixels to a side (default: 32)")
    parser.add_argument("--repeats", type=int, default=5, help="of each call (default: 5)")
    arguments = parser.parse_args()
    for name in ("count", "repeats"):
        check_count(f"--{name}", getattr(arguments, name))

    print(f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    for path in arguments.data:
        data = pm.load_dataset(path, size=arguments.size, limit=arguments.count + 1)
        images, held_out = data.images[:-1], data.images[-1:]
        noise = torch.randn(held_out.shape, generator=torch.Generator().manual_seed(0))
        for t in LEVELS:
            alpha_bar = pm.CosineSchedule().alpha_bar(t)
            x = alpha_bar**0.5 * held_out + (1 - alpha_bar) ** 0.5 * noise
            (one, together, apart), difference = measured(images, x, alpha_bar, arguments.repeats)
            print(
                f"{path}, {len(images)} images, t = {t}: {together:.0f} ms, "
                f"{together / one:.2f} times P = 3 alone ({one:.0f} ms); "
                f"one after the other {apart / one:.2f} times; largest difference {difference:.0e}",
                flush=True,
            )


if __name__ == "__main__":
    run(main)
