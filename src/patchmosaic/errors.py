"""Errors that a user can mend: unusable input, and libraries that are not installed."""

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

EXTRAS = {
    "accelerate": "networks",
    "datasets": "hub",
    "diffusers": "networks",
    "starlette": "explorer",
    "uvicorn": "explorer",
}


class InputError(ValueError):
    """Something the caller gave cannot be used; the message says what to do instead, in one line."""


def check_count(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """The value as an int; InputError unless it is a whole number from ``least`` to ``most``."""
    try:
        count = operator.index(value)
    except (TypeError, RuntimeError):  # the latter from tensors without numbers
        count = least - 1
    if isinstance(value, bool) or count < least or (most is not None and count > most):
        span = f"of at least {least:,}" if most is None else f"from {least:,} to {most:,}"
        raise InputError(f"{name} must be a whole number {span}, not {value!r}")
    return count


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python, or torch on any device, did not get the memory it asked for."""
    told = str(error) if isinstance(error, RuntimeError) else ""
    return isinstance(error, MemoryError) or "can't allocate memory" in told or "out of memory" in told


@contextmanager
def refusing(where: object, mend: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn the given errors of a reader into a one-line InputError."""
    try:
        yield
    except InputError:
        raise
    except errors as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{where} cannot be read ({reason}): {mend}") from error


@contextmanager
def needed_by(who: str) -> Iterator[None]:
    """Around imports of libraries that not everyone installs: what is missing, and the command that installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = error.name or str(error)
        raise ModuleNotFoundError(f"{who} needs {name}: {remedy(name)}", name=name) from None


def remedy(module: str) -> str:
    """The command that installs a module."""
    name = module.split(".")[0]
    return f"pip install 'patchmosaic[{EXTRAS[name]}]'" if name in EXTRAS else f"pip install {name}"
