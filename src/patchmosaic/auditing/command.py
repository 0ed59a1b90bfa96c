"""``patchmosaic audit``."""

import argparse
import time
from dataclasses import replace

from patchmosaic.errors import InputError
from patchmosaic.options import (
    Parser,
    add_data_options,
    add_device_option,
    add_labels_option,
    add_output_options,
    check_device,
    describe,
    given,
    output_folder,
)
from patchmosaic.words import counted

_DESCRIPTION = """\
Tell which generated pictures are copies, partial copies or mosaics of the training images: windows of every picture
(every other one in each direction, or every one if smaller than 7 x 7) are looked up among all windows of all
training images, and what is found is measured pixel by pixel.

  copy          one part, copied from one training image at one offset, holds two thirds of the texture
  partial copy  one part is larger than at most 1 % of real pictures share with the training images
  mosaic        nothing larger is copied than real pictures have in common

The output folder holds report.html (everything in one page, with the evidence drawn), pictures.csv (a line for each
picture), report.json (every copied part), and run.json (settings, fingerprints, versions). Pictures and training
images that are files are named by their path in their folder."""

_EXAMPLES = """\
examples:
  patchmosaic audit runs/my-run --data mnist-train.parquet --size 32
      pictures that patchmosaic generate drew
  patchmosaic audit my-pipeline/ --data photos/ --size 32 --count 200
      a UNet2DModel, or a pipeline with one, saved by diffusers, or a network of patchmosaic train: it draws first
  patchmosaic audit one.jpg --data photos/ --size 32
      where does this picture come from?
  patchmosaic audit drawn/ --data photos/ --size 32 --held-out other-photos/
      a folder of pictures; real pictures that were not trained on tell what is chance

Ctrl-C keeps finished batches; the same command with --resume goes on, to the same bytes."""


def add_options(command: Parser) -> None:
    """The options of ``audit``."""
    describe(command, _audit, _DESCRIPTION, _EXAMPLES, "IMAGES [options]")
    from patchmosaic.auditing.audit import HELD_OUT

    command.add_argument(
        "images",
        metavar="IMAGES",
        help="generated pictures: a run folder of patchmosaic generate, anything that --data takes, or a trained "
        "network that draws them",
    )
    add_data_options(command)
    rules = command.add_argument_group("rules")
    rules.add_argument(
        "--held-out",
        metavar="SOURCE",
        help="real pictures that are not training images (default: training images, each compared with all others)",
    )
    rules.add_argument(
        "--held-out-count",
        type=int,
        default=HELD_OUT,
        metavar="N",
        help=f"how many real pictures (default: {HELD_OUT})",
    )
    rules.add_argument(
        "--window",
        type=int,
        metavar="P",
        help="side of the smallest copied part, odd (default: 7; 5 for pictures below 12 pixels, 3 below 8)",
    )
    rules.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="of the choice of real pictures, and the first of a network's (default: 0)",
    )
    network = command.add_argument_group("pictures of a network")
    network.add_argument("--count", type=int, metavar="N", help="how many it draws (default: 100)")
    add_labels_option(network, "all that there are")
    network.add_argument("--network-steps", type=int, metavar="N", help="of its reverse flow (default: 50)")
    add_device_option(network)
    add_output_options(command)


def _audit(args: argparse.Namespace) -> None:
    from patchmosaic.auditing.results import said, write_results
    from patchmosaic.auditing.run import Run
    from patchmosaic.auditing.settings import Settings
    from patchmosaic.records import read_json

    check_device(args.device)
    config = Settings(**given(Settings, args))
    data = config.load()
    config = replace(config, labels=data.labels_of(args.labels))
    folder = output_folder(args, "audit", config)
    run = Run(folder, config, data, args.device)
    if run.drawing is None and (args.count, args.network_steps) != (None, None):
        raise InputError("pictures are given: --count and --network-steps are for a network that draws")
    if run.files.open(args.resume, args.overwrite):
        print(f"already complete: {folder / 'report.html'}")
    else:
        print(
            f"{counted(run.count, 'picture')} against {counted(len(run.data), 'image')} of {run.data.name}, "
            f"windows of {run.window} x {run.window}, {counted(len(run.real), 'real picture')} for comparison"
        )
        started = time.monotonic()
        write_results(run, *run.audit())
        print(f"{time.monotonic() - started:.1f} s: {folder / 'report.html'}")
    print(said(read_json(folder / "report.json")))
