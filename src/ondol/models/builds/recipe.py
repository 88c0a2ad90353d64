"""What is compiled, from which source, and with which options. Data, and the key of a processor."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass

from ondol.kernels.processor import cpu_flags


@dataclass(frozen=True, slots=True)
class Recipe:
    """A program made from a source archive on the package index.

    ``source`` is the folder of its ``CMakeLists.txt`` inside the archive, ``target`` what CMake
    makes and ``program`` where it then lies in the build folder.
    """

    name: str
    project: str
    version: str
    sha256: str
    bytes: int
    source: str
    target: str
    program: str
    options: tuple[str, ...]


LLAMACPP = Recipe(
    name="llamacpp",
    project="llama-cpp-python",
    version="0.3.36",
    sha256="832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
    bytes=76_589_250,
    source="llama_cpp_python-0.3.36/vendor/llama.cpp",
    target="llama-server",
    program="bin/llama-server",
    options=(
        "-DCMAKE_BUILD_TYPE=Release",
        "-DGGML_NATIVE=ON",
        "-DBUILD_SHARED_LIBS=OFF",
        "-DLLAMA_BUILD_TESTS=OFF",
        "-DLLAMA_BUILD_EXAMPLES=OFF",
        "-DLLAMA_BUILD_APP=OFF",
        # Nothing that talks to the network, runs programs or serves pages.
        "-DLLAMA_BUILD_UI=OFF",
        "-DLLAMA_USE_PREBUILT_UI=OFF",
        "-DLLAMA_OPENSSL=OFF",
        "-DLLAMA_SUBPROCESS=OFF",
        "-DGGML_CCACHE=OFF",
    ),
)
"""llama.cpp's server. The archive is that of its Python binding (MIT), which carries all of it."""

RECIPES = {LLAMACPP.name: LLAMACPP}


def cpu_key() -> str:
    """Return 12 hex digits that stand for what this processor can do.

    A program compiled for another set of instructions may end with an illegal one.
    """
    said = " ".join([platform.machine(), *sorted(cpu_flags())])
    return hashlib.sha256(said.encode()).hexdigest()[:12]
