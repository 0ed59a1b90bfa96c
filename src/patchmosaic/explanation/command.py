"""``patchmosaic explain``."""

import argparse
from pathlib import Path

from patchmosaic.options import (
    Parser,
    add_device_option,
    add_memory_option,
    add_output_options,
    check_device,
    describe,
)
from patchmosaic.words import counted

_DESCRIPTION = """\
Say where the pixels of a drawn picture come from: draw it again, tracing each pixel at every step to the training
patches it is a mean of. RUN is a folder made by patchmosaic generate or patchmosaic compare; of a comparison, the
network's picture is explained beside the machine's.

The output folder holds explain.html (everything in one page), mosaic.png (fragments and their sources), steps.png
(from noise to picture), belief.png, consistency.png, fragments.csv, provenance.safetensors (sources and weights of
every pixel and step, with the training images' numbers in their source), summary.json and run.json."""

_EXAMPLES = """\
examples:
  patchmosaic explain runs/digits-bbels-12345678
      the first picture of a run
  patchmosaic explain runs/compare-12345678 --sample 3 --machine ls
      the fourth pair of a comparison, with another of its machines

Ctrl-C keeps traced steps; the same command with --resume goes on, to the same bytes."""


def add_options(command: Parser) -> None:
    """The options of ``explain``."""
    describe(command, _explain, _DESCRIPTION, _EXAMPLES, usage="RUN [options]")
    command.add_argument("of", type=Path, metavar="RUN", help="folder of a finished run")
    command.add_argument(
        "--sample", type=int, default=0, metavar="I", help="which picture, from 0 (default: 0)"
    )
    command.add_argument("--machine", metavar="NAME", help="of a comparison (default: its last)")
    command.add_argument(
        "--sources", type=int, default=5, metavar="K", help="patches to name for each pixel (default: 5)"
    )
    add_output_options(command, "explain-I inside RUN")
    work = command.add_argument_group("work")
    add_device_option(work)
    add_memory_option(work)


def _explain(args: argparse.Namespace) -> None:
    from patchmosaic.explanation import Run, load_subject
    from patchmosaic.presets import short

    check_device(args.device)
    subject = load_subject(args.of, args.sample, args.machine, args.memory, args.device)
    folder = args.out = args.out or args.of / f"explain-{args.sample}"
    run = Run(folder, args.of, args.sample, subject, args.sources)
    if run.files.open(args.resume, args.overwrite):
        print(f"already complete: {folder / 'explain.html'}")
        return
    for name, found in run.finish(run.trace()).items():
        print(
            f"{short(name)}: {counted(found['fragments'], 'fragment')} "
            f"from {counted(found['sources'], 'training image')}, "
            f"{100 * found['ambiguous_share']:.0f} % of pixels fit several patches, "
            f"{100 * found['locally_consistent_share']:.0f} % locally consistent"
        )
    print(folder / "explain.html")
