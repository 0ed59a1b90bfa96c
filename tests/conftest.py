"""Check the shapes in the signatures of the estimator and its engines; what several tests need."""

import os
import signal
import threading
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

if not torch.cuda.is_available():  # read when triton is imported, which diffusers may do
    os.environ["TRITON_INTERPRET"] = "1"
# A job in the background ignores Ctrl-C, and so would the commands that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

with install_import_hook(
    ["patchmosaic.posterior", "patchmosaic.symmetry", "patchmosaic.dictionary", "patchmosaic.engines"],
    "beartype.beartype",
):
    import patchmosaic

    for name in patchmosaic.__all__:  # names are imported when they are used
        getattr(patchmosaic, name)


@pytest.fixture
def real_data():
    """Gives the path of a file of real data, of which this project has none: in the folder PATCHMOSAIC_DATA."""
    folder = Path(os.environ.get("PATCHMOSAIC_DATA", Path(__file__).parents[2] / "shared" / "data"))

    def path(name):
        if not (folder / name).exists():
            pytest.skip(f"{folder / name} is absent")
        return folder / name

    return path


@pytest.fixture(scope="session")
def digits():
    return patchmosaic.load_dataset("digits")


@pytest.fixture(scope="module")
def serve():
    """Serves studios of the explorer on free ports until the module's tests are over."""
    from patchmosaic.cli import build_parser
    from patchmosaic.explorer.command import _command, _listen
    from patchmosaic.explorer.server import build_app, make_server

    running, given = [], build_parser().parse_args(["explore"])

    def start(studio):
        listening = _listen("127.0.0.1", 0)
        app = build_app(studio, lambda view: _command(given, view))
        server = make_server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(10)
