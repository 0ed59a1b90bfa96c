"""Whether provenance finds where blocks were cut from, in pictures put together from training patches.

    python benchmarks/planted_truth.py digits mnist-train.parquet cifar10-train.parquet --limit 2000

Noise: its standard deviation s in grey levels of 255; provenance is asked at that noise level, alpha_bar = 1 / (1 +
s^2), or in the limit of zero noise. Asked are the pixels whose window lies in one block and occurs once among all
windows inside the training images, the next one being farther than 9 s. "Found": the best source is the pixel that was
copied and holds the majority of belief. "Clear": pixels within blocks whose best source holds the majority; "right": of
these, those that name a pixel with the planted window. "Told": of pixels whose window occurs more than once, those
called ambiguous.
"""

import argparse

import numpy as np
import torch
from script import run
from tqdm import tqdm

import patchmosaic as pm
from patchmosaic import presets
from patchmosaic.engines.trace import ZERO_NOISE
from patchmosaic.errors import check_count

CASES = [(3, 3), (4, 3), (8, 3), (8, 5), (16, 3), (16, 5), (16, 7)]  # side of a block, window
NOISES = (0.0, 1.0, 4.0)


def plant(images, side, rng):
    """A picture of blocks from random places of random images, and (image, row, column) of each pixel."""
    _, channels, height, width = images.shape
    picture = torch.empty(channels, height, width)
    truth = torch.empty(3, height, width, dtype=torch.long)
    for top in range(0, height, side):
        for left in range(0, width, side):
            h, w = min(side, height - top), min(side, width - left)
            n, y, x = (int(rng.integers(end)) for end in (len(images), height - h + 1, width - w + 1))
            picture[:, top : top + h, left : left + w] = images[n, :, y : y + h, x : x + w]
            truth[0, top : top + h, left : left + w] = n
            truth[1, top : top + h, left : left + w] = torch.arange(y, y + h)[:, None]
            truth[2, top : top + h, left : left + w] = torch.arange(x, x + w)
    return picture, truth


def within_blocks(height, width, side, window):
    """Pixels whose window lies in one block."""
    r = window // 2

    def along(size):
        i = torch.arange(size)
        first = i // side * side
        return (i - r >= first) & (i + r < (first + side).clamp(max=size))

    return along(height)[:, None] & along(width)


class Windows:
    """The windows inside the training images, by a hash of their numbers."""

    def __init__(self, images, window):
        self.window = window
        size = images.shape[1] * window**2
        self.weights = torch.randint(1, 2**62, (size,), generator=torch.Generator().manual_seed(0)) * 2 + 1
        hashes = torch.cat([self._hash(part).flatten() for part in images.split(50)])
        self.known, self.counts = np.unique(hashes.numpy(), return_counts=True)

    def _hash(self, images):
        levels = ((images + 1) * 1000).round().long()
        patches = levels.unfold(2, self.window, 1).unfold(3, self.window, 1)
        return (patches.permute(0, 2, 3, 1, 4, 5).flatten(3) * self.weights).sum(3)

    def repeats(self, picture):
        """How often each window of a picture occurs; 0 near the border."""
        hashes = self._hash(picture[None])[0].numpy()
        at = np.searchsorted(self.known, hashes).clip(max=len(self.known) - 1)
        found = torch.from_numpy(np.where(self.known[at] == hashes, self.counts[at], 0))
        return torch.nn.functional.pad(found, [self.window // 2] * 4)


def main():
    """Print a line for each case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+")
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--count", type=int, default=4, help="pictures in each case")
    args = parser.parse_args()
    check_count("--count", args.count)
    heads = ("block", "window", "noise", "asked", "found", "clear", "right", "repeated", "told")
    print(f"{'':18}" + "".join(f"{head:>9}" for head in heads))
    for source in args.data:
        data = pm.load_dataset(source, limit=args.limit)
        cases = [case for case in CASES if case[0] <= min(data.pixels.shape[2:])]
        windows = {window: Windows(data.images, window) for _, window in cases}
        for side, window in tqdm(cases, leave=False, disable=None):
            lines(data, side, window, windows[window], args.count)


def lines(data, side, window, known, count):
    """One for each noise level."""
    images = data.images
    machine, rng = presets.boundary_broken(images, window), np.random.default_rng(0)
    pictures, truths = (
        torch.stack(part) for part in zip(*(plant(images, side, rng) for _ in range(count)), strict=True)
    )
    repeats = torch.stack([known.repeats(picture) for picture in pictures])
    within = within_blocks(*images.shape[2:], side, window)
    clean = machine.trace(pictures, 1.0, k=2)
    apart = (-2 * ZERO_NOISE * clean.logits[:, 1]).sqrt()  # from the second nearest window
    for level in NOISES:
        s = level / 127.5
        alpha_bar = 1 / (1 + s**2)
        disturbance = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(1))
        p = pm.provenance(machine, alpha_bar**0.5 * (pictures + s * disturbance), alpha_bar, k=2)
        asked, clear, several = within & (repeats == 1) & (apart > 9 * s), within & ~p.ambiguous, repeats > 1
        best = torch.stack([p.image[:, 0], p.row[:, 0], p.col[:, 0]], 1)
        found = (best == truths).all(1) & ~p.ambiguous
        same = found | (clear & same_window(images, pictures, best, window))
        told = share(p.ambiguous & several, several) if level == 0 else ""
        numbers = (side, window, level, int(asked.sum()), share(found & asked, asked), int(clear.sum()))
        last = (share(same & clear, clear), int(several.sum()), told)
        print(f"{data.name:18}" + "".join(f"{number:>9}" for number in (*numbers, *last)), flush=True)


def same_window(images, pictures, best, window):
    """Whether the window of the best source is that of the picture, number by number."""
    r = window // 2
    padded, ours = (torch.nn.functional.pad(part, [r] * 4) for part in (images, pictures))
    same = torch.zeros(best[:, 0].shape, dtype=torch.bool)
    for b, i, j in (best[:, 0] >= 0).nonzero().tolist():
        n, y, x = best[b, :, i, j].tolist()
        same[b, i, j] = torch.equal(
            padded[n, :, y : y + window, x : x + window], ours[b, :, i : i + window, j : j + window]
        )
    return same


def share(part, whole):
    """In per cent; a dash of nothing."""
    return f"{100 * int(part.sum()) / int(whole.sum()):.1f} %" if whole.any() else "-"


if __name__ == "__main__":
    run(main)
