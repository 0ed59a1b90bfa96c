"""How belief narrows as noise falls: effective number of patches per pixel along reverse flows, drawn.

    python benchmarks/belief.py digits mnist-train.parquet --limit 1000 --count 8 --out belief.png

Boundary-broken ELS with its rule-of-thumb windows, or for images of 28 pixels and more those published for MNIST; all
numbers are over all pixels of all pictures. The dashed line: all patches that may stand in for a pixel inside.
"""

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

import patchmosaic as pm
from patchmosaic import plots, presets
from patchmosaic.explain import believe

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def main():
    """Print a table for each data set, and draw them side by side."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+")
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--count", type=int, default=8, help="pictures")
    parser.add_argument("--out", type=Path, default=Path("belief.png"))
    args = parser.parse_args()
    page, panels = plots.figure(1, len(args.data), 6.2 * len(args.data), 4.6)
    for panel, source in zip(panels[0], args.data, strict=True):
        data = pm.load_dataset(source, limit=args.limit)
        size = min(data.pixels.shape[2:])
        scales = presets.published_scales("mnist-resnet") if size >= 28 else presets.rule_of_thumb(size)
        machine = presets.boundary_broken(data.pixels, scales)
        schedule = pm.CosineSchedule()
        noise = pm.draw_noise(pm.generators(range(args.count)), machine.dictionary.shape)
        flow = pm.reverse_flow(machine, noise, schedule.times(20), schedule)
        belief = believe(machine, tqdm(to_the_end(flow), total=21, unit="step", desc=data.name, disable=None))
        draw(panel, belief, (*schedule.times(20), 0.0), f"{data.name}, {len(data):,} images")
    panels[0, 0].set_ylabel("effective number of patches", fontsize=10)
    panels[0, -1].legend(frameon=False, fontsize=10, loc="lower left")
    plots.save(page, args.out)
    print(args.out)


def to_the_end(flow):
    """The steps of a flow, and its pictures in the limit of zero noise."""
    for step in flow:
        yield step
    yield pm.Step(0.0, 1.0, step.next_state, step.next_state, step.next_state)


def draw(panel, belief, times, title):
    """Quantiles over pixels against time, and a line of them for each step."""
    effective = belief.effective.flatten(1)
    quantiles = torch.stack([effective.quantile(q, 1) for q in QUANTILES])
    most = belief.patches.flatten(1).amax(1)
    share = (belief.effective / belief.patches).flatten(1).mean(1)
    print(
        f"{title}\n   t  patches  mean share  effective: " + "  ".join(f"{100 * q:.0f} %" for q in QUANTILES)
    )
    for i, t in enumerate(times):
        numbers = "  ".join(f"{value:8.1f}" for value in quantiles[:, i].tolist())
        print(f"{t:.2f}  {int(most[i]):8}  {float(share[i]):8.3f}  {numbers}")
    for (low, high), shade, label in (((0, 4), 0.12, "90 % of pixels"), ((1, 3), 0.25, "50 % of pixels")):
        panel.fill_between(
            times,
            quantiles[low],
            quantiles[high],
            color=plots.COLOURS[0],
            alpha=shade,
            linewidth=0,
            label=label,
        )
    panel.plot(
        times, quantiles[2], color=plots.COLOURS[0], linewidth=2, marker="o", markersize=4, label="median"
    )
    panel.plot(times, most, "--", color=plots.FAINT, label="all that may stand in")
    panel.set_yscale("log")
    panel.set_ylim(0.8)
    panel.invert_xaxis()
    panel.set_xlabel("time t: from noise (left) to picture (right)", fontsize=10)
    panel.set_title(title, loc="left", fontsize=12, color=plots.INK)
    panel.grid(axis="y", color="#e4e4e8", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
