"""``patchmosaic explore``."""

import argparse
import os
import shlex
import socket
import threading
import warnings
import webbrowser
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from patchmosaic.errors import InputError
from patchmosaic.options import Parser, add_data_options, describe

_DESCRIPTION = """\
A page to watch the machines at work: noise becoming a mosaic step by step, the training patches that each pixel
believes it came from, the same noise through growing windows, a trained network beside theory, and pictures of your
own to begin with. It is served on this computer alone and fetches nothing from elsewhere.

The page's address holds the whole view: keep it, or send it to somebody who runs the same command."""

_EXAMPLES = """\
examples:
  patchmosaic explore
      the digits, and the network that comes with patchmosaic
  patchmosaic explore --data mnist-train.parquet --size 32 --limit 2000
      data of your own; the more images, the longer a step takes
  patchmosaic explore --view 'machine=is&seed=3&row=4&col=4' --save view.png
      a view as a picture, without a page"""


def add_options(command: Parser) -> None:
    """The options of ``explore``."""
    describe(command, _explore, _DESCRIPTION, _EXAMPLES)
    add_data_options(command)
    page = command.add_argument_group("page")
    page.add_argument(
        "--network",
        "--model",
        metavar="FOLDER",
        help="made by patchmosaic train, or saved by diffusers (default: the bundled one, where it fits)",
    )
    page.add_argument(
        "--machine", metavar="NAME", help="is, es, ls, els or bbels, to begin with (default: bbels)"
    )
    page.add_argument(
        "--port", type=int, default=8017, metavar="N", help="default: 8017; 0: any that is free"
    )
    page.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="listen there (default: 127.0.0.1, this computer alone; 0.0.0.0: everybody who can reach it)",
    )
    page.add_argument("--no-browser", action="store_true", help="print the address and open nothing")
    page.add_argument(
        "--view",
        default="",
        metavar="QUERY",
        help="what the page shows first: a link, or what follows ? in it",
    )
    page.add_argument("--save", type=Path, metavar="FILE", help="write that view as a PNG, and serve nothing")


def _explore(args: argparse.Namespace) -> None:
    from patchmosaic.data import DataSettings
    from patchmosaic.explorer.studio import Studio
    from patchmosaic.explorer.view import View
    from patchmosaic.options import settings

    view = View.parse({"machine": args.machine or "", **_values(args.view)})
    data = settings(DataSettings, args).load()
    studio = Studio(data, _network(args.network, data))
    if args.save is None:
        _serve(args, studio, view)
        return
    from patchmosaic.explorer.server import reproduced
    from patchmosaic.records import write

    picture = reproduced(studio, view)
    write(args.save, lambda path: path.write_bytes(picture))
    print(args.save)


def _values(link: str) -> dict[str, str]:
    """What --view holds; one of the page's own names is a tab."""
    from patchmosaic.explorer.view import View

    query = link.partition("#")[0].rpartition("?")[2]
    values = {} if "://" in query else dict(parse_qsl(query, keep_blank_values=True))
    known = [*(field.name for field in fields(View)), "tab"]
    for name in values:
        if name not in known:
            raise InputError(f"--view does not know {name[:40]!r}: it may hold {', '.join(known)}")
    return values


def _network(folder: str | None, data: Any) -> Any:
    """The network that was asked for, or the bundled one where it fits."""
    from patchmosaic.nets import load_network
    from patchmosaic.nets.matching import check_fit

    if folder is None and data.name != "digits":
        return None
    try:
        network = load_network(folder)
        check_fit(network, data)
    except (InputError, ModuleNotFoundError):
        if folder is not None:
            raise
        return None
    return network


def _serve(args: argparse.Namespace, studio: Any, view: Any) -> None:
    from patchmosaic.errors import needed_by

    with needed_by("patchmosaic explore"):
        from patchmosaic.explorer.server import build_app, make_server

    listening = _listen(args.host, args.port)
    warnings.filterwarnings(
        "ignore", module="PIL"
    )  # of pictures that people bring: they are told on the page
    local = args.host in ("127.0.0.1", "localhost", "::1")
    port = listening.getsockname()[1]
    query = view.query()
    host = f"[{args.host}]" if ":" in args.host else args.host
    address = f"http://{host}:{port}/" + (f"?{query}" if query else "")
    app = build_app(studio, lambda view: _command(args, view), local)
    print(f"{len(studio.data):,} images of {studio.data.name}: {address}\nCtrl-C stops", flush=True)
    if not args.no_browser:
        threading.Thread(target=webbrowser.open, args=[address], daemon=True).start()
    server = make_server(app)
    serving = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    serving.start()
    try:
        while serving.is_alive():
            serving.join(1)
    except KeyboardInterrupt:
        print("\nstopped", flush=True)
        os._exit(0)  # at once: a step under way may take minutes, and nothing of it is kept


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens already: a port that is taken is told at once, and a browser may come before the server."""
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()
    except (OSError, OverflowError, UnicodeError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot listen on {host}:{port} ({reason}): give another --port, or --port 0"
        ) from None
    return listening


def _command(args: argparse.Namespace, view: Any) -> str:
    """What to type to get a view's picture again."""
    words = ["patchmosaic", "explore"]
    names = ("data", "size", "channels", "classes", "limit", "subset_seed", "split", "network")
    defaults = {"data": "digits", "split": "train"}
    for name in names:
        value = getattr(args, name)
        if value is not None and value != defaults.get(name):
            words += [
                f"--{name.replace('_', '-')}",
                ",".join(value) if isinstance(value, tuple) else str(value),
            ]
    query = view.query()
    return shlex.join([*words, *(["--view", query] if query else []), "--save", "view.png"])
