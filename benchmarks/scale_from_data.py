"""Windows predicted from data alone beside those that the paper's authors calibrated on trained networks.

    python benchmarks/scale_from_data.py mnist-train.parquet fashion_mnist-train.parquet cifar10-train.parquet

Zero-padded ResNets that see 17 pixels, boundary-broken ELS, each as its network was trained: MNIST without classes,
the others by class. Runs are kept under --runs; a second call only reads them. Draws OUT/scale.png and prints the
tables of docs/scale.md.
"""

import argparse
from pathlib import Path

import torch
from script import run

import patchmosaic as pm
from patchmosaic import plots, presets
from patchmosaic.calibration.from_data import Prediction, Settings
from patchmosaic.calibration.predict import RULES, PredictedSchedule
from patchmosaic.calibration.risk_picture import add_windows
from patchmosaic.errors import InputError

NETWORKS = {  # published scales, whether the network was conditioned on classes, training images
    "mnist-train": ("mnist-resnet", False, 5000),
    "fashion_mnist-train": ("fashionmnist-resnet", True, 25000),
    "cifar10-train": ("cifar10-resnet", True, 25000),
}


def main():
    """Measure each data set under each seed; print and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/scale"))
    parser.add_argument("--out", type=Path, default=Path("docs"))
    args = parser.parse_args()
    found = {(path.stem, seed): predict(path, seed, args) for seed in range(args.seeds) for path in args.data}
    page, panels = plots.figure(1, len(args.data), 5.2 * len(args.data), 4.2)
    schedule = pm.CosineSchedule()
    for panel, path in zip(panels[0], args.data, strict=True):
        name = NETWORKS[path.stem][0]
        seeds = [found[path.stem, seed] for seed in range(args.seeds)]
        report(name, seeds)
        times = [schedule.time(alpha_bar) for alpha_bar in seeds[0].alpha_bars]
        add_windows(panel, seeds[0], times, presets.published_scales(name), "published, of a trained ResNet")
        panel.set_title(name.removesuffix("-resnet"), fontsize=12, color=plots.INK)
        panel.set_xlabel("time t", fontsize=10)
    panels[0, 0].set_ylabel("window P, in pixels", fontsize=10)
    panels[0, -1].legend(frameon=False, fontsize=10, loc="upper left")
    plots.save(page, args.out / "scale.png")


def predict(path, seed, args):
    """The schedule of a data set under a seed, from its folder if it was measured before."""
    if path.stem not in NETWORKS:
        raise InputError(f"there are published scales for {', '.join(NETWORKS)}, not for {path.stem}")
    _, by_class, images = NETWORKS[path.stem]
    settings = Settings(
        data=str(path),
        size=32,
        limit=images + args.held_out,
        max_window=17,
        by_class=by_class,
        held_out=args.held_out,
        seed=seed,
    )
    run = Prediction(args.runs / f"{path.stem}-{seed}", settings, settings.load())
    if run.files.open((run.files.path / "run.json").exists(), False):
        return PredictedSchedule.load(run.files.path / "bbels.json")
    return run.measure()


def report(name, seeds):
    """Rows of windows, and how many of the published ones each is within a grid step of."""
    published = presets.PUBLISHED_SCALES[name]
    rows = {"published": published}
    for rule in RULES:
        for seed, schedule in enumerate(seeds):
            rows[f"{rule}, seed {seed}"] = schedule.with_rule(rule).windows
    print(f"\n{name}\n{'t':>20} " + " ".join(f"{i / 20:4.2f}"[1:] for i in range(1, 21)))
    for row, windows in rows.items():
        near = sum(abs(a - b) <= 2 for a, b in zip(windows, published, strict=True))
        print(f"{row:>20} " + " ".join(f"{window:3d}" for window in windows) + f"   within 2: {near}")
    windows = torch.tensor([schedule.windows for schedule in seeds])
    moved = windows.amax(0) - windows.amin(0)
    print(f"between seeds: at most {int(moved.max())} pixels, {int((moved > 0).sum())} levels differ")
    worst = max(float((s.risk_stderr / s.risk).max()) for s in seeds)
    print(f"largest standard error of a risk: {100 * worst:.1f} %")


if __name__ == "__main__":
    run(main)
