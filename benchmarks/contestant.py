"""One contestant of a comparison, in a process of its own: both ends of the pipe.

Standard library only, for it runs in the peers' environment too. The parent writes one JSON line a
request and reads one JSON line back; whatever else the child prints goes to stderr. While one
contestant runs the others are stopped (SIGSTOP), so that no spinning thread of theirs is measured.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Handler = Callable[..., Mapping[str, Any]]


class ContestantFailed(Exception):
    """A contestant's process ended, or answered with an error."""


class Contestant:
    """The parent's end. ``call`` names an operation of the child and returns its answer."""

    def __init__(
        self, name: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=None if env is None else dict(env),
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Run one operation to its end; raises ``ContestantFailed``."""
        if self._process.stdin is None or self._process.stdout is None:
            raise ContestantFailed(f"{self.name} has no pipe")
        try:
            self._process.stdin.write(json.dumps({"operation": operation, **arguments}) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise ContestantFailed(f"{self.name} has ended: {error}") from None
        line = self._process.stdout.readline()
        if not line:
            raise ContestantFailed(f"{self.name} ended in {operation} ({self._process.wait()})")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ContestantFailed(f"{self.name}: {answer['error']}")
        return answer

    def stop(self) -> None:
        """Take it off the processor until ``resume``."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run again."""
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it."""
        self.resume()
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Field:
    """Several contestants, of which one runs at a time."""

    def __init__(self) -> None:
        self.contestants: list[Contestant] = []

    def enter(self, contestant: Contestant) -> None:
        """Take in a contestant that has loaded; it rests until it is called."""
        contestant.stop()
        self.contestants.append(contestant)

    def call(self, contestant: Contestant, operation: str, **arguments: Any) -> dict[str, Any]:
        """Run an operation while everyone else rests."""
        contestant.resume()
        try:
            return contestant.call(operation, **arguments)
        finally:
            contestant.stop()

    def close(self) -> None:
        """End everyone."""
        for contestant in self.contestants:
            contestant.close()


def serve(handlers: Mapping[str, Handler], answers: int) -> None:
    """Answer requests until stdin ends; ``answers`` is the descriptor of ``claim_stdout``."""
    with os.fdopen(answers, "w", encoding="utf-8") as out:
        for line in sys.stdin:
            request: dict[str, Any] = json.loads(line)
            try:
                answer = dict(handlers[request.pop("operation")](**request))
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            out.write(json.dumps(answer) + "\n")
            out.flush()


def claim_stdout() -> int:
    """Keep stdout for answers and send every other print to stderr; call before heavy imports."""
    answers = os.dup(1)
    os.dup2(2, 1)
    return answers


def memory(*, reset: bool = False) -> dict[str, float]:
    """Return this process's memory in MB: resident, its peak, anonymous and file-backed shares.

    ``reset`` starts the peak anew afterwards (``/proc/self/clear_refs``), where the kernel lets us.
    """
    names = {"VmRSS": "rss_mb", "VmHWM": "peak_mb", "RssAnon": "anon_mb", "RssFile": "file_mb"}
    found: dict[str, float] = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in names:
            found[names[name]] = round(int(rest.split()[0]) / 1024, 1)
    if reset:
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            found["peak_not_reset"] = 1.0
    return found
