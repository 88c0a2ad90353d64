"""The installed command as a process of its own, with a home of its own, offline."""

from __future__ import annotations

import json
import os
import queue
import re
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

READY = re.compile(r"ondol is ready on (http://\S+)")


@dataclass(frozen=True)
class Command:
    """Runs ``ondol`` from ``root`` with ``home``."""

    root: Path
    home: Path

    @property
    def environ(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ONDOL_")}
        return {**kept, "ONDOL_HOME": str(self.home), "ONDOL_OFFLINE": "1"}

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run to the end and expect the exit code."""
        done = subprocess.run(
            self._line(arguments),
            cwd=self.root,
            env=self.environ,
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=110,
        )
        if done.returncode != code:
            raise AssertionError(f"{arguments}: exit {done.returncode}, not {code}\n{done.stderr}")
        return done

    def json(self, *arguments: str) -> Any:
        """Run with ``--json`` and return the data."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def start(self, *arguments: str) -> Running:
        """Start without waiting."""
        return Running(
            subprocess.Popen(
                self._line(arguments),
                cwd=self.root,
                env=self.environ,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                encoding="utf-8",
            )
        )

    def _line(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "ondol", *arguments]


class Running:
    """A started command whose stderr is read as it comes. A context manager: killed at the end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        if process.stderr is None:
            raise ValueError("stderr must be a pipe")
        self.process = process
        self.said: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(process.stderr,), daemon=True)
        self._reader.start()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        if self.process.stderr is not None:
            self.process.stderr.close()

    def wait_for(self, pattern: str | re.Pattern[str], *, seconds: float = 60) -> re.Match[str]:
        """Return the match in the first line of stderr that has one; fails when it ends without."""
        while (line := self._lines.get(timeout=seconds)) is not None:
            self.said.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"{pattern!r} was not said:\n{''.join(self.said)}")

    def children(self) -> list[int]:
        """Return the process ids of the direct children (Linux)."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        return [int(pid) for t in tasks.iterdir() for pid in (t / "children").read_text().split()]

    def stop(self, number: signal.Signals, *, code: int, seconds: float = 60) -> None:
        """Send the signal and expect the exit code."""
        self.process.send_signal(number)
        found = self.process.wait(timeout=seconds)
        if found != code:
            raise AssertionError(f"{number.name}: exit {found}, not {code}\n{self._stderr()}")

    def _stderr(self) -> str:
        """Return all that it said, now that it has ended; a child of it may still hold the pipe."""
        self._reader.join(5)
        with suppress(queue.Empty):
            while (line := self._lines.get_nowait()) is not None:
                self.said.append(line)
        return "".join(self.said)

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.put(line)
        self._lines.put(None)


def ended(pid: int, *, seconds: float = 30) -> bool:
    """Wait until a process has ended, in whatever way; ``False`` when that took too long."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        readable, _, _ = select.select([handle], [], [], seconds)
        return bool(readable)
    finally:
        os.close(handle)
