"""``patchmosaic compare``."""

import argparse
import time
from pathlib import Path
from typing import Any

from patchmosaic.errors import check_count
from patchmosaic.options import (
    Parser,
    add_data_options,
    add_labels_option,
    add_network_option,
    add_output_options,
    add_work_options,
    check_device,
    describe,
    given,
    integers,
    names,
    output_folder,
)
from patchmosaic.words import counted

_DESCRIPTION = """\
Give the same noise and the same labels to a trained network and to score machines, and measure how well each
machine predicts what the network draws. All are drawn on the network's noise schedule.

The output folder holds report.html (everything in one page), summary.json, per_seed.csv, pairs.png (network above
theory), scatter.png (each machine against the ideal one), samples.safetensors (every picture), and run.json
(settings, fingerprints of data and network, windows, versions)."""

_EXAMPLES = """\
examples:
  patchmosaic compare
      the network that comes with patchmosaic, on 100 seeds
  patchmosaic compare --network runs/my-network --count 20 --network-steps 50
      a quicker look at a network from patchmosaic train
  patchmosaic compare --network unet/ --data cifar10-train.parquet --scales cifar10-resnet --labels 3,5
      a UNet2DModel saved by diffusers, two of its classes in turn

Ctrl-C keeps finished batches; the same command with --resume goes on, to the same bytes."""


def add_options(command: Parser) -> None:
    """The options of ``compare``."""
    describe(command, _compare, _DESCRIPTION, _EXAMPLES)
    _add_who(command)
    add_data_options(command, source=None)
    _add_flow(command)
    add_output_options(command)
    add_work_options(command, 10, "pictures", "a network's last bits depend on it")


def _add_who(command: argparse.ArgumentParser) -> None:
    from patchmosaic.presets import MACHINES, PUBLISHED_SCALES

    who = command.add_argument_group("network and machines")
    add_network_option(who)
    who.add_argument(
        "--machines",
        type=names,
        metavar="A,B",
        help=f"of {', '.join(MACHINES)} (default: is,ls,bbels; is,ls,els if the network wraps around)",
    )
    who.add_argument(
        "--scales",
        metavar="NAME",
        help="a window for each noise level: a folder with MACHINE.json files, a JSON file, or "
        f"{', '.join(PUBLISHED_SCALES)} (default: calibrated on the network, else from 3 to half the image)",
    )
    who.add_argument(
        "--window", type=int, metavar="P", help="what a pixel sees at every noise level: P x P, odd"
    )


def _add_flow(command: argparse.ArgumentParser) -> None:
    flow = command.add_argument_group("reverse flow")
    flow.add_argument("--count", type=int, default=100, metavar="N", help="how many seeds (default: 100)")
    flow.add_argument("--seed", type=int, default=0, metavar="S", help="seeds S, S+1, ... (default: 0)")
    flow.add_argument(
        "--seeds", type=integers, metavar="A,B", help="these seeds, instead of --count and --seed"
    )
    add_labels_option(flow, "all that there are")
    flow.add_argument(
        "--network-steps",
        type=integers,
        default=(150, 20),
        metavar="A,B",
        help="steps of the network, the main number first (default: 150,20)",
    )
    flow.add_argument(
        "--steps", type=int, default=20, metavar="N", help="steps of the machines (default: 20)"
    )
    flow.add_argument(
        "--start",
        default="aligned",
        metavar="WHERE",
        help="aligned (default), or authors: the machines begin one grid point late, published scales one index off",
    )


def _compare(args: argparse.Namespace) -> None:
    from patchmosaic.comparison.results import table, write_results
    from patchmosaic.comparison.run import Run
    from patchmosaic.nets import load_network
    from patchmosaic.records import read_json

    check_device(args.device)
    network = load_network(args.network, args.device)
    settings, data = _settings(args, network)
    folder = output_folder(args, "compare", settings)
    run = Run(folder, settings, network, data, args.device, args.memory)
    if run.files.open(args.resume, args.overwrite):
        print(f"already complete: {folder / 'report.html'}")
    else:
        print(run.describe())
        started = time.monotonic()
        write_results(run, run.draw())
        print(
            f"{counted(len(settings.seeds), 'seed')} in {time.monotonic() - started:.1f} s: {folder / 'report.html'}"
        )
    print(f"\n{table(read_json(folder / 'summary.json'), settings.machines)}")


def _settings(args: argparse.Namespace, network: Any) -> tuple[Any, Any]:
    """The settings, with what the network decides filled in, and the training images."""
    from dataclasses import asdict, replace

    from patchmosaic.comparison.settings import Settings
    from patchmosaic.data import DataSettings
    from patchmosaic.nets.matching import data_settings, default_machines, labels_in_turn

    check_count("--count", args.count)
    source = data_settings(network, given(DataSettings, args))
    settings = Settings(
        **asdict(source),
        network=args.network and str(Path(args.network)),
        machines=args.machines or default_machines(network),
        seeds=args.seeds or tuple(range(args.seed, args.seed + args.count)),
        network_steps=args.network_steps,
        steps=args.steps,
        start=args.start,
        scales=args.scales,
        window=args.window,
        batch=args.batch,
    )
    data = source.load()
    labels = labels_in_turn(network, data, data.labels_of(args.labels))
    return replace(settings, labels=labels), data
