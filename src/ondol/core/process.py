"""This process's own memory: how much is resident, and giving back what was freed.

glibc keeps freed memory for later; ``trim`` returns it to the system (malloc_trim(3)), which is what
unloading a model is for. On other C libraries it only collects garbage.

This process's place behind the others: the processor only when nobody else wants it.

Which of two libraries must be loaded first.

usearch and ONNX Runtime carry the same C++ symbols: with usearch loaded first, importing ONNX Runtime
ends the process (seen with usearch 2.26 and onnxruntime 1.31); the other way round both work.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.util
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_STATM = Path("/proc/self/statm")
_IMPORT_ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds the package ``ondol``."""
_settled = threading.Event()


def import_path() -> str:
    """Return the ``PYTHONPATH`` of a child process: it imports the Ondol that its parent runs."""
    parts = (str(_IMPORT_ROOT), os.environ.get("PYTHONPATH", ""))
    return os.pathsep.join(part for part in parts if part)


def resident_bytes() -> int | None:
    """Return the bytes of this process that are in memory now, or ``None`` where that is unknown."""
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def trim() -> None:
    """Give freed memory back to the system; takes some milliseconds, from any thread.

    Looks at what ``settle`` set aside too, and sets aside again what is left of it.
    """
    if _settled.is_set():
        gc.unfreeze()
    gc.collect()
    if _settled.is_set():
        gc.freeze()
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # not glibc
        return
    malloc_trim(ctypes.c_size_t(0))


def settle() -> None:
    """Spare the garbage collector what lives now; call once everything has loaded.

    A full look at a loaded server takes 65 ms, in which it answers no one.
    """
    _settled.set()
    gc.collect()
    gc.freeze()


@dataclass(frozen=True, slots=True)
class Growth:
    """How much the process grew while something loaded; ``alone`` when nothing else loaded then."""

    bytes: int | None
    alone: bool


class LoadGauge:
    """Measures loads, from any thread, and notices those that overlap."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._begun = 0

    def measure(self, load: Callable[[], T]) -> tuple[T, Growth]:
        """Run ``load``, give back what it left unused, and return its result with the growth."""
        before = resident_bytes()
        with self._lock:
            self._running += 1
            self._begun += 1
            begun, company = self._begun, self._running > 1
        try:
            loaded = load()
        finally:
            with self._lock:
                self._running -= 1
                company = company or self._begun != begun
        trim()
        after = resident_bytes()
        growth = None if before is None or after is None else max(0, after - before)
        return loaded, Growth(bytes=growth, alone=not company)


def give_way() -> bool:
    """Let every other process go first, in what this thread runs and starts from now on.

    Lower than any niceness: what spins at a barrier is not held up by it (SCHED_IDLE of sched(7)).
    False where the system knows no such class, or does not allow it.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError):
        return False
    return True


def load_onnx_runtime_first() -> None:
    """Import ONNX Runtime now, where it is installed; later imports of it cost nothing."""
    if importlib.util.find_spec("onnxruntime") is not None:
        importlib.import_module("onnxruntime")
