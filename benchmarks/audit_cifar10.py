"""How well the audit tells copies, partial copies and mosaics apart, on pictures whose origin is known.

    python benchmarks/audit_cifar10.py --data cifar10-train.parquet --samples runs/bbels --picture confusion.png

The first --train images are the training set; the others are held out. From them come, --count each: exact copies;
copies shifted by up to 4 pixels, edges repeated; held-out pictures with a square of 12 to 20 pixels of a training
image pasted in; halves of two training images; held-out pictures as they are; and, with --samples, pictures that a
machine drew from some of the training images. All are audited as they are, after JPEG of quality 75, and after noise
of up to 2 grey levels. The threshold is the default one, from training images alone. It prints verdicts, areas under
the ROC curve against the held-out pictures, and times.
"""

import argparse
import io
import resource
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from script import run
from sklearn.metrics import roc_auc_score

import patchmosaic as pm
from patchmosaic import plots
from patchmosaic.auditing.audit import AT_ONCE, held_out_pictures
from patchmosaic.auditing.levels import choose_window
from patchmosaic.auditing.search import Search
from patchmosaic.auditing.settings import Settings
from patchmosaic.auditing.verdict import VERDICTS, judge, score, threshold

HELD_OUT = "held-out pictures"
COPIES = ("exact copies", "shifted copies", "pasted squares", "two halves")


def shifted(image: torch.Tensor, dy: int, dx: int) -> torch.Tensor:
    """Moved, with edges repeated."""
    rows, columns = (
        (torch.arange(size) - by).clamp(0, size - 1)
        for size, by in zip(image.shape[1:], (dy, dx), strict=True)
    )
    return image[:, rows][:, :, columns]


def pasted(image: torch.Tensor, source: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """A square of another picture in it."""
    out, side = image.clone(), int(rng.integers(12, 21))
    top, left, y, x = rng.integers(0, image.shape[1] - side + 1, 4)
    out[:, top : top + side, left : left + side] = source[:, y : y + side, x : x + side]
    return out


def halves(one: torch.Tensor, other: torch.Tensor, sideways: bool) -> torch.Tensor:
    """The left of one and the right of the other, or top and bottom."""
    axis, middle = (2, one.shape[2] // 2) if sideways else (1, one.shape[1] // 2)
    return torch.cat([one.narrow(axis, 0, middle), other.narrow(axis, middle, middle)], axis)


def planted(train: torch.Tensor, held: torch.Tensor, count: int) -> dict[str, torch.Tensor]:
    """Pictures by what they are."""
    rng = np.random.default_rng(0)
    moves = [(dy, dx) for dy in range(-4, 5) for dx in range(-4, 5) if (dy, dx) != (0, 0)]
    some = iter(torch.from_numpy(rng.permutation(len(train))))
    made = {
        "exact copies": [train[next(some)] for _ in range(count)],
        "shifted copies": [shifted(train[next(some)], *rng.choice(moves)) for _ in range(count)],
        "pasted squares": [pasted(one, train[next(some)], rng) for one in held[count : 2 * count]],
        "two halves": [halves(train[next(some)], train[next(some)], i % 2 == 0) for i in range(count)],
        HELD_OUT: list(held[:count]),
    }
    return {name: torch.stack(pictures) for name, pictures in made.items()}


def compressed(pictures: torch.Tensor) -> torch.Tensor:
    """Through JPEG of quality 75."""
    out = torch.empty_like(pictures)
    for picture, to in zip(pictures, out, strict=True):
        file = io.BytesIO()
        Image.fromarray(picture.permute(1, 2, 0).squeeze(2).numpy()).save(file, "JPEG", quality=75)
        to.copy_(torch.from_numpy(np.array(Image.open(file))).view(*picture.shape[1:], -1).permute(2, 0, 1))
    return out


def noisy(pictures: torch.Tensor) -> torch.Tensor:
    """With noise of up to 2 grey levels."""
    noise = torch.randint(-2, 3, pictures.shape, generator=torch.Generator().manual_seed(0))
    return (pictures.int() + noise).clamp(0, 255).to(torch.uint8)


def area_under_curve(positive: np.ndarray, negative: np.ndarray) -> float:
    """The chance that a positive scores higher than a negative."""
    which = np.repeat([True, False], [len(positive), len(negative)])
    return float(roc_auc_score(which, np.concatenate([positive, negative])))


def draw(counts: dict[str, dict[str, Counter]], path: Path) -> None:
    """A confusion matrix for each condition."""
    page, panels = plots.figure(1, len(counts), 4 * len(counts) + 1.5, 3.2, sharey=True)
    for panel, (condition, by_class) in zip(panels[0], counts.items(), strict=True):
        table = np.array([[of[verdict] for verdict in VERDICTS] for of in by_class.values()])
        shares = table / table.sum(1, keepdims=True)
        panel.imshow(shares, cmap="Blues", vmin=0, vmax=1.3, aspect="auto")
        for (i, j), number in np.ndenumerate(table):
            colour = plots.PAPER if shares[i, j] > 0.6 else plots.INK
            panel.text(j, i, number, ha="center", va="center", color=colour)
        panel.set_xticks(range(len(VERDICTS)), VERDICTS)
        panel.set_yticks(range(len(by_class)), by_class)
        panel.set_title(condition, loc="left", color=plots.INK)
        panel.tick_params(length=0)
    plots.save(page, path)


def main() -> None:
    """Print tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="what patchmosaic.load_dataset reads")
    parser.add_argument("--train", type=int, default=10_000, help="training images (default: 10000)")
    parser.add_argument("--count", type=int, default=200, help="pictures of each kind (default: 200)")
    parser.add_argument("--samples", help="a run of patchmosaic generate over some of the training images")
    parser.add_argument("--picture", type=Path, help="where the confusion matrices are drawn")
    arguments = parser.parse_args()

    every = pm.load_dataset(arguments.data).pixels
    train, held = every[: arguments.train], every[arguments.train :]
    classes = planted(train, held, arguments.count)
    if arguments.samples:
        classes["machine's pictures"] = Settings(images=arguments.samples).pictures()[: arguments.count]
    started = time.perf_counter()
    search = Search(train, choose_window(train.shape[1:], None))
    print(
        f"{len(train):,} training images sorted in {time.perf_counter() - started:.1f} s, "
        f"{search.windows.nbytes / 2**20:.0f} MiB"
    )
    pixels = train.shape[2] * train.shape[3]

    def found(pictures: torch.Tensor, hidden: torch.Tensor | None = None) -> list:
        hidden = torch.full((len(pictures),), -1) if hidden is None else hidden
        parts = zip(pictures.split(AT_ONCE), hidden.split(AT_ONCE), strict=True)
        return [one for some, own in parts for one in search(some, own)]

    limit = threshold([score(one, pixels) for one in found(*held_out_pictures(train, None, 0))])
    print(limit)
    counts: dict[str, dict[str, Counter]] = {}
    changes = {"as they are": lambda x: x, "JPEG, quality 75": compressed, "noise of ±2": noisy}
    for condition, change in changes.items():
        wall, cpu = time.perf_counter(), time.process_time()
        reports = {
            name: [judge(one, pixels, limit) for one in found(change(x))] for name, x in classes.items()
        }
        total = sum(map(len, classes.values()))
        wall, cpu = (
            (now - then) / total for now, then in ((time.perf_counter(), wall), (time.process_time(), cpu))
        )
        print(f"\n{condition}: {wall:.3f} s per picture, {cpu:.3f} s of one core")
        print(
            f"{'':20}"
            + "".join(f"{verdict:>14}" for verdict in VERDICTS)
            + f"{'AUC':>10}{'median score':>14}"
        )
        scores = {name: np.array([one.score for one in some]) for name, some in reports.items()}
        counts[condition] = {name: Counter(one.verdict for one in some) for name, some in reports.items()}
        for name, of in counts[condition].items():
            auc = "" if name == HELD_OUT else f"{area_under_curve(scores[name], scores[HELD_OUT]):.4f}"
            cells = "".join(f"{of[verdict]:>14}" for verdict in VERDICTS)
            print(f"{name:20}{cells}{auc:>10}{np.median(scores[name]):>14.3f}")
        copied = np.concatenate([scores[name] for name in COPIES])
        print(f"AUC of all copies: {area_under_curve(copied, scores[HELD_OUT]):.4f}", flush=True)
    if arguments.picture:
        draw(counts, arguments.picture)
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB")


if __name__ == "__main__":
    run(main)
