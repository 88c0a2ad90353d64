"""Compiles the C kernels into the package when it is built or installed.

Without a C compiler, or on another processor family, the package is built without them and stays
pure Python: the form ``native:int8`` is then not offered, and the others are.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("src/ondol/kernels/native")
TARGET = FOLDER / "encoder.so"
FLAGS = ["-O3", "-fPIC", "-shared", "-std=gnu11", "-pthread", "-mtune=generic"]
INSTRUCTIONS = ["avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512dq"]
INSTRUCTIONS += ["avx512vnni", "avx512bf16"]


class NativeBuildHook(BuildHookInterface[Any]):
    """Adds the compiled kernels and, with them, the platform's tag."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        complaint = compile_kernels(Path(self.root))
        if complaint:
            self.app.display_warning(f"built without the form native:int8: {complaint}")
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform_tag()}"
        build_data["artifacts"].append(f"/{TARGET}")


def compile_kernels(root: Path) -> str:
    """Compile the kernels in place; returns why that could not be done, or nothing."""
    target = root / TARGET
    target.unlink(missing_ok=True)
    if os.environ.get("ONDOL_BUILD_NATIVE", "1") == "0":
        return "ONDOL_BUILD_NATIVE is 0"
    if platform.machine() not in {"x86_64", "AMD64"}:
        return f"the kernels are for x86-64, this is {platform.machine()}"
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return "there is no C compiler (cc, gcc or $CC)"
    part = target.with_suffix(".part.so")
    flags = [*FLAGS, *(f"-m{instruction}" for instruction in INSTRUCTIONS)]
    sources = sorted(str(path) for path in (root / FOLDER).glob("*.c"))
    command = [*compiler.split(), *flags, *sources, "-o", str(part)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return f"{compiler} failed: {done.stderr[-400:]}"
    part.replace(target)
    return ""


def _platform_tag() -> str:
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")
