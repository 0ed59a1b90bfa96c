"""Compile the fast engines while the package is built; without a compiler the package works, slower."""

import os
import platform
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_FOLDER = Path("src/patchmosaic/engines")
_SOURCES = [str(_FOLDER / name) for name in ("box.cpp", "screen.cpp", "rings.cpp")]
_FLAGS = [
    *("-std=c++17", "-O3", "-shared", "-fPIC", "-pthread", "-fno-exceptions", "-fno-rtti"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros"),
]
_BUILDS = {
    "base": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"],
}


class CompileEngines(BuildHookInterface):
    """Builds one library per instruction set; the package picks one when it is used."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects the files of a wheel or an editable install."""
        x86 = platform.machine().lower() in ("x86_64", "amd64")
        wanted = [(name, flags) for name, flags in _BUILDS.items() if x86 or not flags]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            built = [path for path in pool.map(self._compile, *zip(*wanted, strict=True)) if path]
        if built:
            build_data["artifacts"] += [str(path) for path in built]
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"

    def _compile(self, name: str, flags: list[str]) -> Path | None:
        target = _FOLDER / f"_box_{name}.so"
        command = [os.environ.get("CXX", "c++"), *_FLAGS, *flags, *_SOURCES, "-o", str(target)]
        try:
            subprocess.run(command, cwd=self.root, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", None) or error
            self.app.display_warning(f"the {name} build of the fast engines was left out: {reason}")
            return None
        return target
