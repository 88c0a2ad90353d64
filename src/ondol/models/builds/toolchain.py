"""The programs that compile: found on this machine, or, for CMake and Ninja, fetched as wheels.

A compiler is never fetched: without one the error says what to install.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ondol.core.errors import DownloadFailed, ModelError

_PINNED = ("cmake==3.31.6", "ninja==1.11.1.4")
_OLDEST_CMAKE = (3, 14)
_INSTALL_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Toolchain:
    """Where the three programs are; ``compiler`` is described by its first line of ``--version``."""

    cmake: str
    ninja: str
    cxx: str
    compiler: str


def find_compiler() -> tuple[str, str]:
    """Return the C++ compiler and what it calls itself; raises ``ModelError`` where there is none."""
    for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        found = shutil.which(name) if name else None
        if found and (said := _version(found)):
            return found, said
    raise ModelError(
        "there is no C++ compiler on this machine",
        hint="install one (Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++; "
        "macOS: xcode-select --install), or stay with the form llamacpp:portable",
    )


def find_toolchain(folder: Path, *, offline: bool) -> Toolchain:
    """Return all three; CMake and Ninja go into ``folder`` where the machine has none.

    Raises ``ModelError`` without a compiler, and ``DownloadFailed`` when the other two are neither
    here nor to be had.
    """
    cxx, compiler = find_compiler()
    cmake, ninja = _cmake(folder), _which("ninja", folder)
    if cmake is None or ninja is None:
        _fetch(folder, offline=offline)
        cmake, ninja = cmake or _cmake(folder), ninja or _which("ninja", folder)
    if cmake is None or ninja is None:
        raise DownloadFailed(
            "the wheels of cmake and ninja have no program for this machine",
            hint="install both (Debian, Ubuntu: apt install cmake ninja-build)",
        )
    return Toolchain(cmake=cmake, ninja=ninja, cxx=cxx, compiler=compiler)


def _cmake(folder: Path) -> str | None:
    found = _which("cmake", folder)
    version = re.search(r"(\d+)\.(\d+)", _version(found)) if found else None
    if version is None or (int(version[1]), int(version[2])) < _OLDEST_CMAKE:
        return None
    return found


def _which(name: str, folder: Path) -> str | None:
    places = [folder / "bin", folder / name / "data" / "bin"]
    inside = shutil.which(name, path=os.pathsep.join(str(place) for place in places))
    # The wheels' scripts need their package; the programs beside it need nothing.
    direct = folder / name / "data" / "bin" / name
    return str(direct) if direct.is_file() else inside or shutil.which(name)


def _version(program: str) -> str:
    try:
        said = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.stdout.partition("\n")[0].strip()


def _fetch(folder: Path, *, offline: bool) -> None:
    if offline:
        raise DownloadFailed(
            "cmake or ninja is not on this machine, and Ondol is offline",
            hint="install both (Debian, Ubuntu: apt install cmake ninja-build), or run it once "
            "with the network",
        )
    command = [
        sys.executable, "-m", "pip", "install", "--no-deps", "--only-binary=:all:", "--no-input",
        "--disable-pip-version-check", "--quiet", "--upgrade", "--target", str(folder), *_PINNED,
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it gave no reason"]
        raise DownloadFailed(
            f"pip could not fetch {' and '.join(_PINNED)}: {said[-1]}",
            hint="install both (Debian, Ubuntu: apt install cmake ninja-build)",
        )
