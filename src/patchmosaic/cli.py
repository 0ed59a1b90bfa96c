"""The command line: thin commands over the library."""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module

from patchmosaic.errors import InputError, is_out_of_memory, remedy
from patchmosaic.options import Parser

_DESCRIPTION = """\
Closed-form score machines: what a convolutional diffusion model will draw, with no training, and from which
training patches. Implements Kamb & Ganguli, "An analytic theory of creativity in convolutional diffusion
models" (ICML 2025, arXiv 2412.20292)."""

_EXAMPLES = """\
examples:
  patchmosaic generate          pictures from handwritten digits, in a few seconds
  patchmosaic explore           a page to watch noise become a mosaic, pixel by pixel
  patchmosaic compare           a trained network's pictures, and theory's from the same noise
  patchmosaic train --help      every choice of a command, with examples

Ctrl-C keeps what is done; the same command with --resume finishes it."""


_COMMANDS = {  # each with its package
    "generate": ("generation", "draw pictures from noise, each beside its nearest training image"),
    "compare": ("comparison", "the same noise to a trained network and to score machines"),
    "explain": ("explanation", "where each pixel of a drawn picture comes from"),
    "explore": ("explorer", "watch the machines at work on a page"),
    "audit": ("auditing", "find copies, partial copies and mosaics of training images"),
    "calibrate": ("calibration", "how far a trained network looks, for each noise level"),
    "train": ("training", "train a ResNet or UNet on pictures"),
    "reproduce": ("reproduction", "a row of the paper's table: train, calibrate, compare"),
    "bench": ("bench", "measure the engines beside other ways to the same answer"),
}


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    from patchmosaic import __version__

    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser("patchmosaic", description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"patchmosaic {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", required=True)
    for name, (package, summary) in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, formatter_class=raw)
        command.fill = partial(_add_options, package)
    return parser


def _add_options(package: str, command: Parser) -> None:
    import_module(f"patchmosaic.{package}.command").add_options(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 for unusable input, 2 for a wrong call, 130 for Ctrl-C."""
    args = argparse.Namespace(command="", out=None)
    try:
        args = build_parser().parse_args(arguments)
        args.run(args)
        sys.stdout.flush()
    except InputError as error:
        print(f"patchmosaic: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        name = error.name or "patchmosaic"
        print(f"patchmosaic: this needs {name}, which is not installed: {remedy(name)}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print(
            f"patchmosaic: out of memory; ask for less (see patchmosaic {args.command} --help)",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(f"\npatchmosaic: stopped{_what_is_left(args)}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _discard_output()
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"patchmosaic: {where}{error.strerror or error}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:
            _discard_output()
        return 1
    return 0


def _discard_output() -> None:
    """What could not be written: Python tries again as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _what_is_left(args: argparse.Namespace) -> str:
    """After Ctrl-C: how to go on, if anything was kept."""
    if args.command == "reproduce":
        return "; the same command goes on from here"
    begun = args.out is not None and any((args.out / name).exists() for name in ("run.json", "bench.json"))
    if "resume" in args and (args.resume or begun):
        return "; the same command with --resume goes on from here"
    return " before anything was kept"


if __name__ == "__main__":
    sys.exit(main())
