"""Command-line options that several commands share."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from patchmosaic.errors import InputError

_Settings = TypeVar("_Settings")


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes take one line.

    Attributes:
        fill: adds the options once they are asked for: their help names what takes seconds to import.
    """

    fill: "Callable[[Parser], None] | None" = None

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """As of any parser."""
        fill, self.fill = self.fill, None
        if fill is not None:
            fill(self)
        return super().parse_known_args(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """End with the message in a line."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def describe(
    command: Parser,
    run: Callable[[argparse.Namespace], None],
    description: str,
    epilog: str,
    usage: str = "[options]",
) -> None:
    """What a command does.

    Args:
        command: its parser.
        run: called with the arguments.
        description: the top of its help.
        epilog: the end of its help.
        usage: what follows its name.
    """
    command.description, command.epilog = description, epilog
    command.usage = f"{command.prog} {usage}"
    command.set_defaults(run=run)


def add_data_options(command: argparse.ArgumentParser, source: str | None = "digits") -> None:
    """The options behind :class:`patchmosaic.data.DataSettings`.

    Args:
        command: where they are added.
        source: used without --data; None: the network's own training images, and what is not given stays None.
    """
    data = command.add_argument_group("training images")
    data.add_argument(
        "--data",
        default=source,
        metavar="SOURCE",
        help="digits, two-tone, a .parquet/.tar/.npz/.npy/IDX file, an image or a folder of them, or hub:NAME "
        f"(default: {source or 'what the network was trained on'})",
    )
    data.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="crop the centre square and resize it to PIXELS x PIXELS, antialiased (transparency is dropped in any "
        "case: the colour of a pixel counts)",
    )
    data.add_argument("--channels", type=int, metavar="1|3", help="make all images grey (1) or RGB (3)")
    data.add_argument(
        "--classes", type=names, metavar="A,B", help="use only these classes, by name or number"
    )
    data.add_argument(
        "--limit", type=int, metavar="N", help="use the first N images, or a random N with --subset-seed"
    )
    data.add_argument("--subset-seed", type=int, metavar="SEED", help="draw the subset of --limit at random")
    data.add_argument(
        "--split",
        default=source and "train",
        metavar="NAME",
        help="split of a hub:NAME data set (default: train)",
    )


def add_output_options(
    command: argparse.ArgumentParser, default: str = "runs/ and a name made from the settings"
) -> None:
    """Where results go, by ``default`` in words, and what happens to those that are there."""
    output = command.add_argument_group("output")
    output.add_argument("--out", type=Path, metavar="FOLDER", help=f"default: {default}")
    found = output.add_mutually_exclusive_group()
    found.add_argument("--resume", action="store_true", help="finish an interrupted run")
    found.add_argument(
        "--overwrite", action="store_true", help="start anew over what the folder holds of a run"
    )


def add_network_option(group: Any) -> None:
    """Which trained network."""
    group.add_argument(
        "--network",
        metavar="FOLDER",
        help="made by patchmosaic train, or saved by diffusers (default: the bundled one, of digits)",
    )


def add_labels_option(group: Any, default: str, remark: str = "") -> None:
    """Which classes; ``default`` says in words what happens without."""
    group.add_argument(
        "--labels",
        type=names,
        metavar="A,B",
        help=f"classes to draw, by name or number, in turn (default: {default}){remark}",
    )


def add_work_options(command: argparse.ArgumentParser, batch: int, of: str, effect: str) -> Any:
    """Device, memory and batch.

    Args:
        command: gets the options.
        batch: its default.
        of: what comes in batches.
        effect: what depends on their size.

    Returns:
        The group, for more of them.
    """
    work = command.add_argument_group("work")
    add_device_option(work)
    add_memory_option(work)
    work.add_argument(
        "--batch",
        type=int,
        default=batch,
        metavar="N",
        help=f"{of} at a time (default: {batch}); {effect}",
    )
    return work


def add_memory_option(command: Any) -> None:
    """``--memory`` in bytes."""
    command.add_argument(
        "--memory",
        type=size_in_bytes,
        default="512MiB",
        metavar="SIZE",
        help="working memory of a machine beside the images, such as 2GiB (default: 512MiB)",
    )


def add_device_option(group: Any) -> None:
    """Where the work is done."""
    group.add_argument("--device", default="cpu", metavar="NAME", help="cpu (default) or cuda")


def settings(kind: type[_Settings], args: argparse.Namespace) -> _Settings:
    """A dataclass of settings from arguments of the same names."""
    from dataclasses import fields

    return kind(**{field.name: getattr(args, field.name) for field in fields(kind)})  # type: ignore[arg-type]


def given(kind: type, args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of the same names as a dataclass's fields, without those that are None."""
    from dataclasses import fields

    values = {field.name: getattr(args, field.name) for field in fields(kind)}
    return {name: value for name, value in values.items() if value is not None}


def output_folder(args: argparse.Namespace, name: str, config: object) -> Path:
    """--out, or else ``runs/`` and a name that tells settings apart, which is noted as --out."""
    import hashlib
    import json
    from dataclasses import asdict

    content = json.dumps(asdict(config), sort_keys=True)  # type: ignore[call-overload]
    args.out = args.out or Path("runs") / f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    return args.out


def check_device(device: str) -> None:
    """InputError where the device is not there."""
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        raise InputError(f"device {device!r} is not available here; use --device cpu") from None


def integers(text: str) -> tuple[int, ...]:
    """A type of argument: 0,1,2."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of integers such as 0,1,2") from None


def names(text: str) -> tuple[str, ...]:
    """A type of argument: a,b,c."""
    return tuple(part.strip() for part in text.split(","))


def size_in_bytes(text: str) -> int:
    """A type of argument: 512MiB."""
    from patchmosaic.machine import LEAST_MEMORY_BUDGET

    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)i?B?", text.strip(), re.IGNORECASE)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 512MiB or 2GiB")
    size = int(float(match[1]) * 1024 ** " KMG".index(match[2].upper() or " "))
    if size < LEAST_MEMORY_BUDGET:
        raise argparse.ArgumentTypeError(f"{text!r} is too little: give 1MiB at least")
    return size
