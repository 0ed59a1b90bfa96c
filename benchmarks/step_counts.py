"""How the likeness of theory and network depends on the number of steps of each.

The paper compares theory in 20 steps with a network in 150 and in 20, finds the first comparison closer, and leaves
open why. This measures r for a grid of both step counts, for machines that begin where the network does and for ones
that begin one grid point late, with and without the window read one step off, as the authors' code does both.

    python benchmarks/step_counts.py --out runs/steps                     # the bundled network of digits
    python benchmarks/step_counts.py --network runs/mnist/train --count 16 --out runs/steps-mnist

Writes ``steps.json`` and ``steps.png``.
"""

import argparse
from pathlib import Path

import torch
from script import run
from tqdm import tqdm

import patchmosaic as pm
from patchmosaic.metrics import measure
from patchmosaic.nets import load_network
from patchmosaic.records import read_json, versions, write, write_json

VARIANTS = {
    "aligned": ("aligned", False),
    "begins late": ("authors", False),
    "begins late, windows off by one": ("authors", True),
}


def schedule_of(found: pm.LocalitySchedule, off_by_one: bool) -> pm.LocalitySchedule:
    """The windows of a schedule on the cosine's grid, where they were calibrated or one step off."""
    return pm.LocalitySchedule.from_steps(found.windows, pm.CosineSchedule(), authors_index=off_by_one)


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--network", help="folder of a network with calibrated windows (default: the bundled one)"
    )
    parser.add_argument("--machine", default="bbels")
    parser.add_argument(
        "--scales", help="windows of the machine, as calibrate writes them (default: the network's)"
    )
    parser.add_argument("--count", type=int, default=100, help="seeds")
    parser.add_argument("--theory-steps", default="5,10,20,40,80,150")
    parser.add_argument("--network-steps", default="5,10,20,40,80,150,300")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    network = load_network(args.network)
    settings = network.data()
    scales = pm.LocalitySchedule.load(args.scales) if args.scales else network.scales(args.machine)
    if settings is None or scales is None:
        raise SystemExit("the network needs its training data on record, and calibrated windows (--scales)")
    data = settings.load()
    noise = pm.draw_noise(pm.generators(range(args.count)), network.shape)
    labels = None if network.classes is None else torch.arange(args.count) % network.classes
    theory_steps, network_steps = (
        [int(part) for part in text.split(",")] for text in (args.theory_steps, args.network_steps)
    )

    drawn = {
        steps: pm.sample(network, noise, steps, network.schedule, labels).images
        for steps in tqdm(network_steps, desc="network")
    }
    record = {
        "machine": args.machine,
        "seeds": args.count,
        "data": {"name": data.name, "fingerprint": data.fingerprint, "images": len(data)},
        "network": network.fingerprint,
        "windows": scales.windows,
        "theory_steps": theory_steps,
        "network_steps": network_steps,
        "versions": versions(),
        "median_r": {},
        "machine_with_itself": {},
        "network_with_itself": [
            float(measure(drawn[network_steps[-1]], drawn[steps])["r"].median()) for steps in network_steps
        ],
    }
    with tqdm(total=len(VARIANTS) * len(theory_steps), desc="theory") as bar:
        for name, (start, off_by_one) in VARIANTS.items():
            machine = pm.presets.MACHINES[args.machine](
                data.pixels, labels=data.labels, locality=schedule_of(scales, off_by_one)
            )
            images = {}
            for steps in theory_steps:
                images[steps] = pm.sample(machine, noise, steps, labels=labels, start=start).images
                bar.update()
            record["median_r"][name] = [
                [float(measure(drawn[count], images[steps])["r"].median()) for count in network_steps]
                for steps in theory_steps
            ]
            record["machine_with_itself"][name] = [
                float(measure(images[theory_steps[-1]], images[steps])["r"].median())
                for steps in theory_steps
            ]
            write_json(args.out / "steps.json", record)
    draw(read_json(args.out / "steps.json"), args.out / "steps.png")


def draw(record: dict, path: Path) -> None:
    """A table of medians for each variant, darker where theory and network are more alike."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(VARIANTS), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    values = [value for rows in record["median_r"].values() for row in rows for value in row]
    for panel, (name, rows) in zip(
        figure.subplots(1, len(VARIANTS)), record["median_r"].items(), strict=True
    ):
        panel.imshow(rows, cmap="Blues", vmin=min(values), vmax=max(values), aspect="auto")
        for i, row in enumerate(rows):
            for j, value in enumerate(row):
                dark = value > (min(values) + max(values)) / 2
                panel.text(
                    j,
                    i,
                    f"{value:.3f}",
                    ha="center",
                    va="center",
                    color="white" if dark else "#1c1c1e",
                    fontsize=9,
                )
        panel.set_xticks(range(len(record["network_steps"])), record["network_steps"])
        panel.set_yticks(range(len(record["theory_steps"])), record["theory_steps"])
        panel.set_xlabel("steps of the network")
        panel.set_ylabel("steps of the machine")
        panel.set_title(name, loc="left", fontsize=11)
        panel.spines[:].set_visible(False)
        panel.tick_params(length=0)
    machine = pm.presets.short(record["machine"])
    figure.suptitle(
        f"Median r of {machine} with the network over {record['seeds']} seeds, {record['data']['name']}"
    )
    write(path, lambda temporary: figure.savefig(temporary, dpi=110))


if __name__ == "__main__":
    run(main)
