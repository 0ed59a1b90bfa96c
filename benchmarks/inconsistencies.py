"""How often a machine draws a wrong number of parts, holes, legs or sleeves, and whether larger late windows mend it.

Kamb & Ganguli (2025, fig. 5c) have it that extra limbs arise because late windows are too small to see the whole. Here
the published windows are clamped from below, P = max(published, m), for several m, with the same noise for all; what
counts as wrong is what fewer than one in a hundred of the machine's training images show (patchmosaic.explain.Norm).
The steps on which two schedules agree are taken once.

    python benchmarks/inconsistencies.py --data fashion_mnist-train.parquet --out runs/inconsistencies
    python benchmarks/inconsistencies.py ... --network runs/net     # and whether a network errs on the same seeds

The same command goes on with an interrupted run; a larger --count adds seeds, a longer --least windows. Writes
``inconsistencies.json``, ``inconsistencies.png``, and for each class pictures of the worst samples and of what larger
windows make of them.
"""

import argparse
from itertools import islice
from pathlib import Path

import torch
from inconsistency_counts import results, table
from inconsistency_pictures import curves, mended, worst
from script import run
from torch import Tensor
from tqdm import tqdm

import patchmosaic as pm
from patchmosaic.explain import Norm
from patchmosaic.explain.structures import THRESHOLD
from patchmosaic.nets import load_network
from patchmosaic.records import differences, read_json, read_tensors, versions, write_json, write_tensors

SCHEDULE, STEPS, NETWORK_STEPS, SIZE = pm.CosineSchedule(), 20, 150, 32


def clamped(scales: pm.LocalitySchedule, least: int) -> pm.LocalitySchedule:
    """The same windows, none smaller than ``least``."""
    return pm.LocalitySchedule(scales.alpha_bars, [max(window, least) for window in scales.windows])


def draw(
    machine: pm.ScoreMachine, scales: pm.LocalitySchedule, leasts: list[int], noise: Tensor, labels: Tensor
) -> dict[str, Tensor]:
    """Samples (B, C, H, W) for each least window; each flow leaves the first one where its windows begin to differ."""
    times = SCHEDULE.times(STEPS)
    levels = [SCHEDULE.alpha_bar(time) for time in times]
    same = {least: next((i for i in range(STEPS) if scales(levels[i]) < least), STEPS) for least in leasts}
    machine.locality = scales
    flow = pm.reverse_flow(machine, noise, times, SCHEDULE, labels)
    states = [noise, *(step.next_state for step in islice(flow, max(same.values())))]
    images = {}
    for least, first in same.items():
        machine.locality = clamped(scales, least)
        images[str(least)] = states[first]
        for step in pm.reverse_flow(machine, states[first], times[first:], SCHEDULE, labels):
            images[str(least)] = step.next_state
    return images


def draw_all(args: argparse.Namespace, data: pm.Dataset) -> dict[int, dict[str, Tensor]]:
    """The samples of each class by least window, and the network's as "network"; finished batches are read."""
    machine = pm.presets.boundary_broken(data.pixels, 1, labels=data.labels)
    scales = pm.presets.find_scales(args.scales)
    network = load_network(args.network) if args.network else None
    firsts = range(args.first_seed, args.first_seed + args.count, args.batch)
    found: dict[int, list[dict[str, Tensor]]] = {label: [] for label in args.classes}
    for first in tqdm(firsts, desc="batches of seeds"):
        seeds = range(first, min(first + args.batch, args.first_seed + args.count))
        noise = pm.draw_noise(pm.generators(seeds), machine.dictionary.shape)
        for label in args.classes:
            labels = torch.full((len(seeds),), label)
            path = args.out / "samples" / f"{label}-{seeds[0]:04d}-{seeds[-1]:04d}.safetensors"
            images = read_tensors(path)[0] if path.exists() else {}
            missing = [least for least in args.least if str(least) not in images]
            if missing:
                images |= draw(machine, scales, missing, noise, labels)
                write_tensors(path, images)
            if network is not None:
                images["network"] = pm.sample(network, noise, NETWORK_STEPS, network.schedule, labels).images
            found[label].append(images)
    names = [*map(str, args.least), *(["network"] if network else [])]
    return {
        label: {name: torch.cat([images[name] for images in batches]) for name in names}
        for label, batches in found.items()
    }


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="training images, as patchmosaic generate takes them")
    parser.add_argument(
        "--classes", default="1,2", help="numbers of classes (default: trousers and pullovers)"
    )
    parser.add_argument("--limit", type=int, default=1000, help="training images, of these classes together")
    parser.add_argument("--scales", default="fashionmnist-resnet", help="published scales, or a JSON file")
    parser.add_argument(
        "--least", default="3,5,7,9,11,15,21,27", help="least windows; the first changes nothing"
    )
    parser.add_argument("--count", type=int, default=64, help="seeds")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=8, help="seeds drawn, and kept, together")
    parser.add_argument(
        "--threshold", type=float, default=THRESHOLD, help="foreground is brighter, in [-1, 1]"
    )
    parser.add_argument("--network", help="folder of a class-conditional network of the same training images")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.classes, args.least = (
        [int(part) for part in text.split(",")] for text in (args.classes, args.least)
    )
    return args


def main() -> None:
    """Draw, count, write."""
    args = arguments()
    data = pm.load_dataset(args.data, size=SIZE, channels=1, classes=args.classes, limit=args.limit)
    settings = {"classes": args.classes, "scales": args.scales, "data": data.fingerprint}
    if (args.out / "run.json").exists():
        different = differences(read_json(args.out / "run.json"), {"settings": settings})
        if different:
            raise SystemExit(
                f"{args.out} holds a run with other settings ({different}); choose another --out"
            )
    write_json(args.out / "run.json", {"settings": settings, "versions": versions()})

    drawn, record = draw_all(args, data), {}
    for label in args.classes:
        name, training = data.class_names[label], data.labels == label
        everything = pm.load_dataset(args.data, size=SIZE, channels=1, classes=label)
        held_out = ~torch.isin(everything.indices, data.indices)
        real = {"training": data.images[training], "held out": everything.images[held_out]}
        norm = Norm.of(real["training"], threshold=args.threshold)
        record[name] = results(norm, real, drawn[label])
        print(table(name, record[name]), record[name].get("network", ""), sep="\n")
        worst(drawn[label], norm, name, args.first_seed, args.out / f"worst-{label}.png")
        mended(drawn[label], norm, name, args.first_seed, args.out / f"mended-{label}.png")
    write_json(args.out / "inconsistencies.json", record)
    curves(read_json(args.out / "inconsistencies.json"), args.out / "inconsistencies.png")


if __name__ == "__main__":
    run(main)
