"""Whether provenance finds where blocks were cut from, in pictures put together from training patches.

    python benchmarks/planted_truth.py digits mnist-train.parquet cifar10-train.parquet --limit 2000

Asked are the pixels whose window lies in one block and occurs once among all windows inside the training images.
"Found": the best source is the pixel that was copied, and holds the majority of belief. "Told": of the pixels whose
window occurs more than once, the share that is called ambiguous. Noise: its standard deviation in grey levels of 255;
the sources are those of the noisy picture in the limit of zero noise.
"""

import argparse

import numpy as np
import torch
from tqdm import tqdm

import patchmosaic as pm
from patchmosaic import presets

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
    print(
        f"{'':20} {'block':>5} {'window':>6} {'noise':>6} {'asked':>6} {'found':>8} {'repeated':>8} {'told':>8}"
    )
    for source in args.data:
        data = pm.load_dataset(source, limit=args.limit)
        images = data.images
        height, width = images.shape[2:]
        cases = [case for case in CASES if case[0] <= min(height, width)]
        windows = {window: Windows(images, window) for _, window in cases}
        for side, window in tqdm(cases, leave=False, disable=None):
            machine = presets.boundary_broken(images, window)
            rng = np.random.default_rng(0)
            pictures, truths = zip(*(plant(images, side, rng) for _ in range(args.count)), strict=True)
            repeats = torch.stack([windows[window].repeats(picture) for picture in pictures])
            unique = within_blocks(height, width, side, window) & (repeats == 1)
            for noise in NOISES:
                disturbance = torch.randn(
                    len(pictures), *images.shape[1:], generator=torch.Generator().manual_seed(1)
                )
                p = pm.provenance(machine, torch.stack(pictures) + noise / 127.5 * disturbance, 1.0, k=2)
                best = torch.stack([p.image[:, 0], p.row[:, 0], p.col[:, 0]], 1)
                right = (best == torch.stack(truths)).all(1) & ~p.ambiguous
                several = repeats > 1
                print(
                    f"{data.name:20} {side:5} {window:6} {noise:6g} {int(unique.sum()):6} "
                    f"{share(right & unique, unique)} {int(several.sum()):8} "
                    f"{share(p.ambiguous & several, several) if noise == 0 else '':>8}",
                    flush=True,
                )


def share(part, whole):
    """In per cent; a dash of nothing."""
    return f"{100 * int(part.sum()) / int(whole.sum()):6.1f} %" if whole.any() else f"{'-':>8}"


if __name__ == "__main__":
    main()
