"""``patchmosaic generate``."""

import argparse
import time
from dataclasses import replace

from patchmosaic.errors import check_count
from patchmosaic.options import (
    Parser,
    add_data_options,
    add_labels_option,
    add_output_options,
    add_work_options,
    check_device,
    describe,
    integers,
    output_folder,
    settings,
)
from patchmosaic.words import counted

_DESCRIPTION = """\
Draw pictures from noise with a score machine:
  is     ideal: sees the whole image, can only copy training images
  es     equivariant: the whole image, copies circular translates
  ls     local: each pixel sees a window, and training patches at its own place
  els    equivariant local: a wrapped window, and training patches from everywhere
  bbels  boundary-broken els: zeros outside the image tell pixels near the border where they are

The output folder holds grid.png (each sample beside its nearest training image), samples.safetensors,
metrics.json (how far it is from that, and its file if it is one), and run.json (settings, seeds, the data's
fingerprint, versions)."""

_EXAMPLES = """\
examples:
  patchmosaic generate
      eight pictures from scikit-learn's handwritten digits, in a few seconds
  patchmosaic generate --machine is
      the ideal machine on the same noise: every picture is a copy of a training image
  patchmosaic generate --data mnist-train.parquet --size 32 --scales mnist-resnet --limit 2000
      what a ResNet trained on MNIST draws, from 2,000 images
  patchmosaic generate --data photos/ --size 32 --labels cat,dog --trajectory --out runs/photos
      a folder with a subfolder per class: one class after the other, every step kept

Ctrl-C keeps what is done; the same command with --resume finishes it, to the same bytes."""


def add_options(command: Parser) -> None:
    """The options of ``generate``."""
    describe(command, _generate, _DESCRIPTION, _EXAMPLES)
    from patchmosaic.engines import ENGINES
    from patchmosaic.presets import MACHINES, PUBLISHED_SCALES
    from patchmosaic.sampling import SOLVERS
    from patchmosaic.schedule import SCHEDULES
    from patchmosaic.symmetry import POINT_GROUPS

    add_data_options(command)

    machine = command.add_argument_group("machine")
    machine.add_argument(
        "--machine", default="bbels", metavar="NAME", help=f"one of {', '.join(MACHINES)} (default: bbels)"
    )
    machine.add_argument("--window", type=int, metavar="P", help="what a pixel sees: P x P, odd")
    machine.add_argument(
        "--scales",
        metavar="NAME",
        help="a window for each noise level: a JSON file, or "
        f"{', '.join(PUBLISHED_SCALES)} (default: from 3 to half the image, 7 at least)",
    )
    machine.add_argument(
        "--padding", metavar="KIND", help="what ls sees outside the image: zeros (default) or circular"
    )
    machine.add_argument(
        "--keys",
        default="all",
        metavar="WHICH",
        help="training positions used by els: all (default), or inside (the authors' variant)",
    )
    machine.add_argument(
        "--group",
        default="identity",
        metavar="NAME",
        help=f"acts on the training images: {', '.join(POINT_GROUPS)} (default: identity)",
    )

    flow = command.add_argument_group("reverse flow")
    flow.add_argument("--count", type=int, default=8, metavar="N", help="how many pictures (default: 8)")
    flow.add_argument("--seed", type=int, default=0, metavar="S", help="seeds S, S+1, ... (default: 0)")
    flow.add_argument(
        "--seeds", type=integers, metavar="A,B", help="these seeds, instead of --count and --seed"
    )
    add_labels_option(flow, "none, unconditional")
    flow.add_argument(
        "--steps", type=int, default=20, metavar="N", help="grid points from t = 1 to t = 0 (default: 20)"
    )
    flow.add_argument(
        "--schedule",
        default="cosine",
        metavar="NAME",
        help=f"{', '.join(SCHEDULES)} (default: cosine, the paper's)",
    )
    flow.add_argument(
        "--solver", default="ddim", metavar="NAME", help=f"{', '.join(SOLVERS)} (default: ddim)"
    )
    flow.add_argument(
        "--start",
        default="aligned",
        metavar="WHERE",
        help="aligned (default), or authors: one grid point late, published scales one index off",
    )
    flow.add_argument("--trajectory", action="store_true", help="keep every noisy state and clean prediction")

    add_output_options(command)
    work = add_work_options(command, 8, "pictures", "changes no result")
    work.add_argument("--dtype", default="float32", metavar="TYPE", help="float32 (default) or float64")
    work.add_argument(
        "--engine",
        default="auto",
        metavar="NAME",
        help=f"how the sum is carried out: {', '.join(ENGINES)}, triton (default: auto, the fastest here)",
    )


def _generate(args: argparse.Namespace) -> None:
    from patchmosaic.generation.run import Config, Run, generate

    check_count("--batch", args.batch)
    check_count("--count", args.count)
    args.seeds = args.seeds or tuple(range(args.seed, args.seed + args.count))
    config = settings(Config, args)
    check_device(args.device)
    data = config.load()
    config = replace(config, labels=data.labels_of(args.labels))
    machine = config.build(data, args.engine, args.memory, args.device)
    folder = output_folder(args, f"{data.name}-{config.machine}", config)
    run = Run(folder, config, data, machine)
    if run.files.open(args.resume, args.overwrite):
        print(f"already complete: {run.folder / 'grid.png'}")
        return
    print(f"{config.machine} over {len(data):,} images of {data.name}, {run.describe_locality()}")
    started = time.monotonic()
    generate(run, args.batch)
    print(
        f"{counted(len(config.seeds), 'picture')} in {time.monotonic() - started:.1f} s: {run.folder / 'grid.png'}"
    )
