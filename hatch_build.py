"""Compiles the C kernels into the package when it is built or installed.

Without a C compiler, or on another processor family, the package is built without them and stays
pure Python: the form ``native:int8`` is then not offered, and the others are.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("src/ondol/backends/native/encoder.c")
TARGET = SOURCE.with_suffix(".so")
FLAGS = (
    "-O3 -fPIC -shared -std=gnu11 -pthread -mtune=generic -mavx512f -mavx512bw -mavx512vl "
    "-mavx512dq -mavx512vnni -mavx512bf16 -mavx2 -mfma -mf16c"
).split()


class NativeBuildHook(BuildHookInterface[Any]):
    """Adds the compiled kernels and, with them, the platform's tag."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or not compile_kernels(Path(self.root)):
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform_tag()}"
        build_data["artifacts"].append(f"/{TARGET}")


def compile_kernels(root: Path) -> bool:
    """Compile the kernels in place; returns whether they are there now."""
    target = root / TARGET
    target.unlink(missing_ok=True)
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    wanted = os.environ.get("ONDOL_BUILD_NATIVE", "1") != "0"
    if not wanted or compiler is None or platform.machine() not in {"x86_64", "AMD64"}:
        return False
    part = target.with_suffix(".part.so")
    command = [*compiler.split(), *FLAGS, str(root / SOURCE), "-o", str(part)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(
            f"the C kernels were not compiled (native:int8 is not offered): {done.stderr[-400:]}",
            file=sys.stderr,
        )
        return False
    part.replace(target)
    return True


def _platform_tag() -> str:
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")
