"""``patchmosaic calibrate``."""

import argparse
import time
from pathlib import Path
from typing import Any

from patchmosaic.errors import InputError, check_count
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
Find how far a trained network looks: the window P, noise level by noise level, in which a score machine's noise
estimate is most like the network's along the network's own way from noise to picture. The schedule is the median
over trajectories (of an even number, the lower one).

The output folder holds MACHINE.json for each machine, which patchmosaic generate --scales reads; calibration.png;
calibration.json (every trajectory's best window); and run.json (settings, fingerprints of data
and network, versions); with --receptive-fields also receptive.png and receptive.json.

With --from-data no network is needed: the window is that in which the machine denoises held-out images best, or the
smallest that is nearly as good (--rule). With --network too it is the smallest that denoises them as well as that
network. The folder then holds MACHINE.json, risk.csv, risk.png and windows.png."""

_EXAMPLES = """\
examples:
  patchmosaic calibrate --out runs/windows
      the network that comes with patchmosaic
  patchmosaic calibrate --network runs/my-network --save-with-network
      a network from patchmosaic train; patchmosaic compare then uses these windows
  patchmosaic calibrate --network unet/ --data mnist-train.parquet --size 32 --limit 2000 --machines bbels
      a UNet2DModel saved by diffusers, one machine over 2,000 images
  patchmosaic calibrate --from-data --data photos/ --size 32 --max-window 17 --out runs/photos
      windows for your own images, as a network that sees 17 pixels would choose them
  patchmosaic calibrate --from-data --network runs/my-network --out runs/as-good
      windows that denoise its training images as well as a network does, from its loss alone

Ctrl-C keeps finished batches; the same command with --resume goes on, to the same bytes."""


def add_options(command: Parser) -> None:
    """The options of ``calibrate``."""
    describe(command, _calibrate, _DESCRIPTION, _EXAMPLES)
    _add_what(command)
    _add_from_data(command)
    add_data_options(command, source=None)
    add_output_options(command)
    work = add_work_options(command, 5, "trajectories", "a network's last bits depend on it")
    work.add_argument(
        "--save-with-network",
        action="store_true",
        help="also put the windows in the network's folder, as scales/MACHINE.json; not with --from-data",
    )


def _add_what(command: argparse.ArgumentParser) -> None:
    from patchmosaic.presets import LOCAL_MACHINES

    what = command.add_argument_group("network and machines")
    add_network_option(what)
    what.add_argument(
        "--machines",
        type=names,
        metavar="A,B",
        help=f"of {', '.join(LOCAL_MACHINES)} (default: ls,bbels; ls,els if the network wraps around); "
        "with --from-data one of them (default: bbels)",
    )
    what.add_argument(
        "--windows",
        type=integers,
        metavar="A,B",
        help="odd sizes to try (default: 3,5,... up to what the network sees, and 31 if that is not known)",
    )
    flow = command.add_argument_group("trajectories")
    flow.add_argument("--count", type=int, metavar="N", help="how many (default: 20); not with --from-data")
    flow.add_argument(
        "--seed",
        type=int,
        default=1000,
        metavar="S",
        help="seeds S, S+1, ... (default: 1000, which compare does not use); with --from-data the one that draws "
        "held-out images, their pixels and noise",
    )
    add_labels_option(flow, "all that there are", "; not with --from-data")
    flow.add_argument(
        "--steps",
        type=int,
        default=20,
        metavar="N",
        help="of each (default: 20); with --from-data as many noise levels",
    )
    flow.add_argument(
        "--receptive-fields",
        action="store_true",
        help="also how strongly the clean estimate of the centre pixel depends on each pixel; not with "
        "--from-data",
    )


def _add_from_data(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("without a network")
    group.add_argument("--from-data", action="store_true", help="predict the windows from held-out images")
    group.add_argument(
        "--held-out", type=int, metavar="N", help="images to measure on (default: a fifth, 200 at most)"
    )
    group.add_argument(
        "--pixels", type=int, metavar="N", help="of each, at random (default: 8; all, if fewer)"
    )
    group.add_argument("--by-class", action="store_true", help="denoise an image by those of its class alone")
    group.add_argument(
        "--max-window", type=int, metavar="P", help="the largest to try, such as a network's receptive field"
    )
    group.add_argument(
        "--rule",
        metavar="NAME",
        help="gain (default), argmin, one-stderr, or with --network network (the default then; docs/scale.md)",
    )
    group.add_argument(
        "--beside", metavar="SCALES", help="published scales by name, or a JSON file, to draw beside"
    )


def _predict(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from patchmosaic.calibration.from_data import Prediction, Settings
    from patchmosaic.data import DataSettings
    from patchmosaic.nets import load_network
    from patchmosaic.nets.matching import data_settings

    machines = args.machines or ("bbels",)
    if len(machines) > 1:
        raise InputError("--from-data predicts the windows of one machine: give one to --machines")
    if args.save_with_network or args.receptive_fields or (args.count, args.labels) != (None, None):
        raise InputError(
            "--from-data follows no network: leave out --count, --labels, --save-with-network and --receptive-fields"
        )
    check_device(args.device)
    network = load_network(args.network, args.device) if args.network else None
    source = given(DataSettings, args)
    if network is not None:
        source = asdict(data_settings(network, source))
    names = ("max_window", "by_class", "held_out", "pixels", "steps", "rule", "seed", "network", "beside")
    chosen = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    settings = Settings(**source, machine=machines[0], windows=args.windows, **chosen)
    folder = output_folder(args, "predict", settings)
    run = Prediction(folder, settings, settings.load(), network, args.memory)
    if run.files.open(args.resume, args.overwrite):
        print(f"already complete: {run.files.path / run.files.results[0]}")
        return
    started = time.monotonic()
    windows = " ".join(map(str, run.measure().windows))
    print(f"{settings.machine}: {windows} (lowest noise first): {run.files.path / run.files.results[0]}")
    print(f"{run.held_out} held-out images in {time.monotonic() - started:.1f} s")


def _calibrate(args: argparse.Namespace) -> None:
    if args.from_data:
        _predict(args)
        return
    of_held_out = (args.held_out, args.pixels, args.max_window, args.rule, args.beside)
    if args.by_class or of_held_out != (None,) * len(of_held_out):
        raise InputError(
            "--held-out, --pixels, --by-class, --max-window, --rule and --beside are about held-out images: "
            "add --from-data"
        )
    if args.save_with_network and args.network is None:
        raise InputError("the bundled network has its windows: name yours with --network")
    from patchmosaic.calibration.run import Run
    from patchmosaic.nets import load_network

    check_device(args.device)
    network = load_network(args.network, args.device)
    settings, data = _settings(args, network)
    folder = output_folder(args, "calibrate", settings)
    run = Run(folder, settings, network, data, args.device, args.memory)
    if run.files.open(args.resume, args.overwrite):
        print(f"already complete: {folder / 'calibration.json'}")
    else:
        print(
            f"{', '.join(settings.machines)} over {len(data):,} images of {data.name}, "
            f"windows {settings.windows[0]} to {settings.windows[-1]}"
        )
        started = time.monotonic()
        for name, calibration in run.measure().items():
            windows = " ".join(map(str, calibration.schedule.windows))
            print(f"{name}: {windows} (lowest noise first): {folder / name}.json")
        print(
            f"{counted(len(settings.seeds), 'trajectory', 'trajectories')} in {time.monotonic() - started:.1f} s"
        )
    if args.save_with_network:
        print(f"written: {', '.join(map(str, run.save_with_network()))}")


def _settings(args: argparse.Namespace, network: Any) -> tuple[Any, Any]:
    """The settings, with what the network decides filled in, and the training images."""
    from dataclasses import asdict, replace

    from patchmosaic.calibration.calibrate import candidate_windows
    from patchmosaic.calibration.settings import Settings
    from patchmosaic.data import DataSettings
    from patchmosaic.nets.matching import data_settings, default_machines, labels_in_turn

    count = 20 if args.count is None else check_count("--count", args.count)
    source = data_settings(network, given(DataSettings, args))
    settings = Settings(
        **asdict(source),
        network=args.network and str(Path(args.network)),
        machines=args.machines or default_machines(network)[1:],  # without IS
        windows=args.windows or candidate_windows(min(network.shape[1:]), network.receptive_field),
        seeds=tuple(range(args.seed, args.seed + count)),
        steps=args.steps,
        batch=args.batch,
        receptive_fields=args.receptive_fields,
    )
    data = source.load()
    return replace(settings, labels=labels_in_turn(network, data, data.labels_of(args.labels))), data
