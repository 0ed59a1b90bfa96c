"""Time per step per picture of the exact boundary-broken machine on a CUDA device, beside the device's ceilings.

    python benchmarks/gpu_picture.py --data cifar10-train.parquet --limit 50000 --batch 8

For each of 20 noise levels of the published scales it prints the window, the milliseconds per picture (CUDA events,
median of three, after a warm-up that compiles), pairs of pixel and patch per second, and the largest error against the
dense engine in float64 on a few of the images. Then come the ceilings, measured by small Triton kernels: float32
multiply-adds, 2^x, and products of bytes on the tensor cores.
"""

import argparse
import json
import statistics
from collections.abc import Callable

import torch
import triton
import triton.language as tl
from script import run

import patchmosaic as pm
from patchmosaic.symmetry import Rules, position_blocks

STEPS = 20
BLOCK, ROUNDS = tl.constexpr(1024), tl.constexpr(4096)


@triton.jit
def _multiply_add(out):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    a = tl.load(out + at)
    b, c, d = a + 1.0, a + 2.0, a + 3.0
    for _ in range(ROUNDS):
        a, b, c, d = a * 0.5 + 1.0, b * 0.5 + 1.0, c * 0.5 + 1.0, d * 0.5 + 1.0
    tl.store(out + at, a + b + c + d)


@triton.jit
def _exponential(out):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    a = tl.load(out + at)
    b, c, d = a + 0.1, a + 0.2, a + 0.3
    for _ in range(ROUNDS):
        a, b, c, d = tl.exp2(-a), tl.exp2(-b), tl.exp2(-c), tl.exp2(-d)
    tl.store(out + at, a + b + c + d)


@triton.jit
def _products(a, b, out):
    row, column, number = tl.arange(0, 128), tl.arange(0, 256), tl.arange(0, 128)
    x = tl.load(a + row[:, None] * 128 + number[None, :])
    y = tl.load(b + column[None, :] * 128 + number[:, None])
    sums = tl.zeros([128, 256], tl.int32)
    for _ in range(ROUNDS):
        sums = tl.dot(x, y, sums)
    tl.store(out + tl.program_id(0) * 128 * 256 + row[:, None] * 256 + column[None, :], sums)


def milliseconds(work: Callable[[], object], repeats: int = 3) -> float:
    """The median time of ``work`` on the device, after one call that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def ceilings() -> dict[str, float]:
    """Measured peaks, in 10^12 per second: float32 operations, powers of two, operations on bytes."""
    programs = 32 * torch.cuda.get_device_properties(0).multi_processor_count
    floats = torch.zeros(programs * BLOCK.value, device="cuda")
    few = programs // 8
    a, b = (torch.ones(rows, 128, dtype=torch.int8, device="cuda") for rows in (128, 256))
    sums = torch.empty(few, 128, 256, dtype=torch.int32, device="cuda")
    rounds = ROUNDS.value
    counted = {
        "float32 TFLOP/s": (lambda: _multiply_add[(programs,)](floats), floats.numel() * 8 * rounds),
        "2^x T/s": (lambda: _exponential[(programs,)](floats), floats.numel() * 4 * rounds),
        "byte TOP/s": (lambda: _products[(few,)](a, b, sums, num_warps=8), 2 * sums.numel() * 128 * rounds),
    }
    return {name: count / milliseconds(work) / 1e9 for name, (work, count) in counted.items()}


def worst_error(images: torch.Tensor, x: torch.Tensor, window: int, alpha_bar: float) -> float:
    """The largest difference from the dense engine in float64, over a few images."""
    fast = pm.presets.boundary_broken(images, window, engine="triton").to("cuda")
    dense = pm.presets.boundary_broken(images, window, engine="dense").to("cuda")
    return float((fast.denoise(x, alpha_bar) - dense.denoise(x.double(), alpha_bar)).abs().max())


def main() -> None:
    """Print a table and, last, everything as one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", required=True, help="what patchmosaic.load_dataset reads: 50,000 CIFAR-10 images"
    )
    parser.add_argument("--limit", type=int, help="use the first images only")
    parser.add_argument("--batch", type=int, default=8, help="pictures at a time (default: 8)")
    parser.add_argument(
        "--scales", default="cifar10-resnet", help="published scales (default: cifar10-resnet)"
    )
    parser.add_argument(
        "--checked", type=int, default=100, help="images in the check of errors (default: 100)"
    )
    arguments = parser.parse_args()

    pixels = torch.as_tensor(pm.load_dataset(arguments.data).pixels)[: arguments.limit]
    scales = pm.presets.published_scales(arguments.scales)
    machine = pm.presets.boundary_broken(pixels, scales, engine="triton").to("cuda")
    height, width = pixels.shape[2:]
    generator = torch.Generator().manual_seed(0)
    clean = machine.dictionary.images(torch.arange(arguments.batch), torch.float32)
    noise = torch.randn(clean.shape, generator=generator).cuda()
    print(f"{len(pixels):,} images {tuple(pixels.shape[1:])}, {arguments.batch} pictures at a time")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, triton {triton.__version__}")
    rows = []
    for i in range(1, STEPS + 1):
        alpha_bar = pm.CosineSchedule().alpha_bar(i / STEPS * 0.999)
        window = scales(alpha_bar)
        x = alpha_bar**0.5 * clean + (1 - alpha_bar) ** 0.5 * noise
        time = milliseconds(lambda x=x, a=alpha_bar: machine.denoise(x, a)) / len(x)
        blocks = position_blocks(height, width, window, Rules(True, "zeros"))
        pairs = len(pixels) * sum(block.queries.numel() * block.keys.shape[1] for block in blocks)
        error = worst_error(pixels[: arguments.checked], x[:2], window, alpha_bar)
        rows.append({"alpha_bar": alpha_bar, "window": window, "ms": time, "pairs": pairs, "error": error})
        rate = pairs / time / 1e9
        print(
            f"{alpha_bar:8.5f} {window:3d} {time:9.2f} ms {rate:7.3f} T pairs/s, error {error:.1e}",
            flush=True,
        )
    mean = statistics.mean(row["ms"] for row in rows)
    memory = torch.cuda.max_memory_allocated() / 2**20
    print(f"mean {mean:.2f} ms per step per picture, {memory:.0f} MiB at most")
    peaks = ceilings()
    print(", ".join(f"{name} {value:.1f}" for name, value in peaks.items()))
    print(json.dumps({"mean_ms": mean, "mib": memory, "steps": rows, "ceilings": peaks}))


if __name__ == "__main__":
    run(main)
