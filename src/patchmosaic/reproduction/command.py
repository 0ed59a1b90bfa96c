"""``patchmosaic reproduce``."""

import argparse
import shlex
from pathlib import Path

from patchmosaic.errors import InputError
from patchmosaic.options import Parser, add_device_option, describe

_DESCRIPTION = """\
Reproduce a row of the table of Kamb & Ganguli (ICML 2025): train the network, calibrate the machines' windows on it,
compare them on the same noise, and print our figures beside the paper's with what was reduced. It runs three
other commands of patchmosaic, which it prints: each can be run again by hand, with other choices."""


def add_options(command: Parser) -> None:
    """The options of ``reproduce``."""
    from patchmosaic.reproduction.rows import BUDGETS, ROWS

    rows = "\n".join(f"  {name}" for name in ROWS)
    budgets = "\n".join(f"  {name:6}  {budget.time}" for name, budget in BUDGETS.items())
    epilog = f"rows:\n{rows}\n\nbudgets:\n{budgets}\n\nCtrl-C keeps what is done; the same command goes on from there."
    describe(command, _reproduce, _DESCRIPTION, epilog, "ROW [options]")
    command.add_argument("row", metavar="ROW", help="one of those below")
    command.add_argument(
        "--budget", default="smoke", metavar="NAME", help="one of those below (default: smoke)"
    )
    command.add_argument(
        "--data",
        metavar="SOURCE",
        help="where the row's training images are (default: the Hub, except for CelebA)",
    )
    add_device_option(command)
    command.add_argument("--out", type=Path, metavar="FOLDER", help="default: runs/ROW-BUDGET")
    command.add_argument("--dry-run", action="store_true", help="print the commands only")


def _reproduce(args: argparse.Namespace) -> None:
    from patchmosaic.records import write_json, write_text
    from patchmosaic.reproduction.rows import BUDGETS, ROWS
    from patchmosaic.reproduction.stages import commands, markdown, table

    if args.row not in ROWS:
        raise InputError(f"no row called {args.row!r}; there are {', '.join(ROWS)}")
    if args.budget not in BUDGETS:
        raise InputError(f"budget must be one of {', '.join(BUDGETS)}, not {args.budget!r}")
    row, budget = ROWS[args.row], BUDGETS[args.budget]
    folder = args.out or Path("runs") / f"{args.row}-{args.budget}"
    for arguments in commands(row, budget, folder, args.data, args.device):
        print(f"\n$ patchmosaic {shlex.join(arguments)}", flush=True)
        if not args.dry_run:
            _run(arguments, folder / arguments[0])
    if args.dry_run:
        return
    content = table(args.row, row, budget, folder)
    text = markdown(content)
    write_json(folder / "table.json", content)
    write_text(folder / "table.md", text)
    print(f"\n{text}\n{folder / 'table.md'}")


def _run(arguments: list[str], folder: Path) -> None:
    """Carry a command out, going on where it was interrupted."""
    from patchmosaic.cli import build_parser

    if (folder / "run.json").exists():
        arguments = [*arguments, "--resume"]
    args = build_parser().parse_args(arguments)
    args.run(args)
