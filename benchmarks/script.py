"""How every benchmark ends that cannot go on: with one line."""

import sys
from collections.abc import Callable
from pathlib import Path

from patchmosaic.errors import InputError


def run(main: Callable[[], None]) -> None:
    """Call ``main``; input that cannot be used, and Ctrl-C, are told in a line and end with status 1."""
    name = Path(sys.argv[0]).stem
    try:
        main()
    except (InputError, OSError) as error:
        raise SystemExit(f"{name}: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(f"\n{name}: stopped") from None
