"""Files that are either whole or not there, and the versions a result depends on."""

import json
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from patchmosaic.errors import InputError


def write(path: str | Path, save: Callable[[Path], object]) -> None:
    """Call ``save`` with a temporary path beside ``path``, then rename: a failure leaves nothing half done."""
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary.is_file():
            temporary.unlink()


def write_json(path: str | Path, content: object) -> None:
    """Write JSON with sorted keys."""
    text = json.dumps(content, indent=1, sort_keys=True) + "\n"
    write(path, lambda temporary: temporary.write_text(text))


def read_json(path: str | Path) -> Any:
    """Read JSON, or say which file is not."""
    try:
        return json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path} as JSON: {error}") from None


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], **metadata: str) -> None:
    """Write a safetensors file."""
    from safetensors.torch import save

    content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata or None)
    write(path, lambda temporary: temporary.write_bytes(content))


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"cannot read {path} as safetensors: {error}") from None


def versions() -> dict[str, str]:
    """What a result depends on beside its configuration."""
    import numpy as np

    from patchmosaic import __version__

    return {
        "patchmosaic": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def differences(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """The settings in which two records differ, in words; empty if none."""
    return ", ".join(
        f"{key}: {found.get(part, {}).get(key)} there, {value} here"
        for part, settings in expected.items()
        for key, value in settings.items()
        if found.get(part, {}).get(key) != value
    )
