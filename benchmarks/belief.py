"""How belief narrows as noise falls: effective number of patches per pixel along reverse flows, drawn.

    python benchmarks/belief.py digits mnist-train.parquet --limit 1000 --count 8 --out belief.png

Boundary-broken ELS with its rule-of-thumb windows, or for images of 28 pixels and more those published for MNIST. The
table is over the pixels, of all pictures, that have one source in the end; a flat window is found in very many places.
Dashed: all patches that may stand in for a pixel inside. The last point, t = 0, is the finished picture in the limit of
zero noise.
"""

import argparse
from pathlib import Path

import torch
from script import run
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
    panels[0, 0].legend(frameon=False, fontsize=10, loc="lower left")
    plots.save(page, args.out)
    print(args.out)


def to_the_end(flow):
    """The steps of a flow, and its pictures in the limit of zero noise."""
    for step in flow:
        yield step
    yield pm.Step(0.0, 1.0, step.next_state, step.next_state, step.next_state)


def draw(panel, belief, times, title):
    """Medians over pixels against time, with half of the pixels shaded, and a line of quantiles for each step."""
    effective = belief.effective.flatten(1)
    most, share = belief.patches.flatten(1).amax(1), (belief.effective / belief.patches).flatten(1).mean(1)
    panel.plot(times, most, "--", color=plots.FAINT, label="all that may stand in")
    clear = effective[-1] < 2
    print(f"{title}: {100 * float(clear.double().mean()):.0f} % of pixels with one source in the end")
    print("   t   patches  mean share  " + "  ".join(f"{100 * q:6.0f} %" for q in QUANTILES) + "  of them")
    groups = (
        (~clear, plots.COLOURS[3], "pixels that several patches fit in the end"),
        (clear, plots.COLOURS[0], "pixels with one source in the end"),
    )
    for which, colour, label in groups:
        quantiles = torch.stack([effective[:, which].quantile(q, 1) for q in QUANTILES])
        panel.fill_between(times, quantiles[1], quantiles[3], color=colour, alpha=0.2, linewidth=0)
        panel.plot(times, quantiles[2], color=colour, linewidth=2, marker="o", markersize=4, label=label)
    for i, t in enumerate(times):
        numbers = "  ".join(f"{value:8.1f}" for value in quantiles[:, i].tolist())
        print(f"{t:.2f}  {int(most[i]):8}  {float(share[i]):10.3f}  {numbers}")
    panel.set_yscale("log")
    panel.set_ylim(0.8)
    panel.invert_xaxis()
    panel.set_xlabel("time t: from noise (left) to picture (right)", fontsize=10)
    panel.set_title(title, loc="left", fontsize=12, color=plots.INK)
    panel.grid(axis="y", color="#e4e4e8", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    run(main)
