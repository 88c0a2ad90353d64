"""A probe as its parent sees it: start it, ask it, end it. One question at a time.

The probe is a new interpreter (no fork), so that its memory is its own and its crash costs only
itself. Not thread-safe.

Energy of the processor packages from RAPL, where the kernel lets us read it.

Source: the Linux powercap interface, ``/sys/class/powercap/intel-rapl:N/energy_uj`` (AMD too).
Virtual machines have none, and many systems let only root read it: then there is no figure.

This process's peak and steady memory, as the kernel counts it.

``VmHWM`` and not ``ru_maxrss``: the latter starts at what the parent had when it forked.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ondol.core.errors import ProbeFailed
from ondol.core.process import import_path, resident_bytes, trim

_START_SECONDS = 60.0
_CHUNK = 1 << 20

DEFAULT_SECONDS = 1800.0
"""Longest wait for one answer, where the caller names none."""


class Probe:
    """A running child process that holds one encoder."""

    def __init__(self) -> None:
        environment = dict(os.environ)
        environment["PYTHONPATH"] = import_path()
        # -P: a module lying in the current folder must not be imported in place of a library
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ondol.lab.probe.probe_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # the terminal's Ctrl-C is the parent's to handle
        )
        self._buffer = bytearray()
        try:
            self._receive("start", _START_SECONDS)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(
        self, operation: str, *, seconds: float = DEFAULT_SECONDS, **arguments: Any
    ) -> dict[str, Any]:
        """Return the answer to ``operation`` (see ``operations.Operations``).

        Raises ``ProbeFailed`` when the encoder raises, the process dies, or ``seconds`` run out.
        """
        line = json.dumps({"op": operation, **arguments}) + "\n"
        try:
            if self._process.stdin is None:
                raise BrokenPipeError
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise self._died(operation) from None
        answer = self._receive(operation, seconds)
        if "error" in answer:
            raise ProbeFailed(str(answer["error"]), hint=str(answer.get("hint", "")))
        return answer

    def close(self) -> None:
        """End the process and wait for its end; callable twice."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _receive(self, operation: str, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            if self._process.stdout is None:
                raise self._died(operation)
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([self._process.stdout], [], [], left)[0]
            if not ready:
                self.close()
                raise ProbeFailed(
                    f"{operation} took longer than {seconds:g} s",
                    hint="the machine may be busy; try fewer texts",
                )
            chunk = os.read(self._process.stdout.fileno(), _CHUNK)
            if not chunk:
                raise self._died(operation)
            self._buffer += chunk
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _died(self, operation: str) -> ProbeFailed:
        code = self._process.wait()
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        memory = code == -signal.SIGKILL
        return ProbeFailed(
            f"the process ended during {operation} ({name})",
            hint="most likely out of memory" if memory else "run it again with -v",
        )


_POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Counts joules of all packages from its making on; counters that wrap are mended once."""

    def __init__(self, *, root: Path = _POWERCAP) -> None:
        self._zones = sorted(
            zone for zone in root.glob("intel-rapl:*") if zone.name.count(":") == 1
        )
        self._start = self._read()

    def joules(self) -> float | None:
        """Return the joules since the start, or ``None`` where there is no counter to read."""
        now = self._read()
        if not self._start or len(now) != len(self._start):
            return None
        total = 0
        for (before, _), (after, span) in zip(self._start, now, strict=True):
            total += after - before if after >= before else after + span - before
        return total / 1e6

    def _read(self) -> list[tuple[int, int]]:
        """Return (microjoules, range) per package; empty where one cannot be read."""
        try:
            return [
                (
                    int((zone / "energy_uj").read_text()),
                    int((zone / "max_energy_range_uj").read_text()),
                )
                for zone in self._zones
            ]
        except (OSError, ValueError):
            return []


_STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """Return the most bytes this process has had in memory."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def steady_bytes() -> int:
    """Return what stays in memory once freed memory has been given back."""
    trim()
    return resident_bytes() or peak_bytes()
