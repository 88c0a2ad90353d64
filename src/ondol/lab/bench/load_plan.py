"""Plans for the client process, and running it: rows and texts become shots, its file figures.

Owns the child process and its two files. A shot's body is OpenAI's chat shape; the server's own
deadline header is sent where there is a deadline.

When it is asked: seconds after the start, one per request, decided before anything is sent.

Open loop: no arrival waits for an answer. Poisson gaps are drawn once at rate 1 and stretched, so
that every load replays the same pattern. Pure.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from ondol.core.errors import ProbeFailed
from ondol.core.process import import_path
from ondol.lab.bench.load_figures import Seen
from ondol.lab.bench.load_prompts import Messages
from ondol.lab.bench.request_trace import Row

_GRACE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """A server to ask: its base URL (``/v1`` left out), the model's name, and headers to send."""

    url: str
    model: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def with_deadline(self, deadline_ms: float) -> Target:
        """Return the target asked with a deadline for each first token; 0 sends none."""
        if not deadline_ms:
            return self
        headers = {**self.headers, "x-ondol-deadline-ms": f"{deadline_ms:g}"}
        return Target(self.url, self.model, headers)


@dataclass(frozen=True, slots=True)
class Shot:
    """One request: when it is sent, what it is, its text, and when its client leaves, if it does."""

    at: float
    row: Row
    messages: Messages
    leave_after: float | None = None


@dataclass(frozen=True, slots=True)
class Manner:
    """How the client behaves: closed loop of ``concurrency`` askers, or 0 for the schedule.

    ``counted`` answers end a closed loop (0: all); ``timeout`` bounds one try, in seconds.
    """

    concurrency: int = 0
    counted: int = 0
    retries: int = 0
    timeout: float = 600.0


@dataclass(frozen=True, slots=True)
class LoadRun:
    """What a client process brought back."""

    seen: tuple[Seen, ...]
    seconds: float
    client_cpu_seconds: float


def leaving(count: int, *, share: float, within: float, seed: int) -> tuple[float | None, ...]:
    """Return for each of ``count`` requests after how many seconds its client leaves, or ``None``."""
    chance = random.Random(f"leaving:{seed}")
    return tuple(
        chance.uniform(0.0, within) if chance.random() < share else None for _ in range(count)
    )


def ask(target: Target, shots: Sequence[Shot], manner: Manner | None = None) -> LoadRun:
    """Send ``shots`` from a process of their own and return what came.

    Raises ``ProbeFailed`` when that process fails or outlasts every limit.
    """
    manner = manner or Manner()
    plan = {
        "url": target.url,
        "headers": dict(target.headers),
        "timeout": manner.timeout,
        "retries": manner.retries,
        "concurrency": manner.concurrency,
        "counted": manner.counted,
        "shots": [
            {"at": shot.at, "leave_after": shot.leave_after, "body": _body(target, shot)}
            for shot in shots
        ],
    }
    found = _run(plan, seconds=_longest(shots, manner))
    seen = tuple(Seen.of(record, shots[record["number"]].row) for record in found["records"])
    return LoadRun(seen, found["seconds"], found["cpu_seconds"])


def _body(target: Target, shot: Shot) -> dict[str, Any]:
    return {
        "model": target.model,
        "messages": shot.messages,
        "max_tokens": shot.row.output_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def _longest(shots: Sequence[Shot], manner: Manner) -> float:
    tries = manner.timeout * (1 + manner.retries)
    turns = len(shots) if manner.concurrency else 1
    return max((shot.at for shot in shots), default=0.0) + tries * turns + _GRACE_SECONDS


def _run(plan: Mapping[str, Any], *, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="ondol-load-") as name:
        asked, answered = Path(name) / "plan.json", Path(name) / "result.json"
        asked.write_text(json.dumps(plan), "utf-8")
        line = [sys.executable, "-P", "-m", "ondol.lab.bench.load_client"]
        try:
            done = subprocess.run(
                [*line, str(asked), str(answered)],
                env={**os.environ, "PYTHONPATH": import_path()},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ProbeFailed(
                f"the load client took longer than {seconds:g} s",
                hint="the server may have stopped answering: see its log",
            ) from None
        if done.returncode != 0 or not answered.exists():
            last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            raise ProbeFailed(
                f"the load client ended with exit code {done.returncode}: {' '.join(last)}",
                hint="run it again with -v",
            )
        result: dict[str, Any] = json.loads(answered.read_text("utf-8"))
        return result


ArrivalKind = Literal["poisson", "burst", "trace"]


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How requests come; a burst is ``size`` (0: all) at once, every ``every`` seconds."""

    kind: ArrivalKind = "poisson"
    seed: int = 0
    size: int = 0
    every: float = 1.0

    def times(self, rows: Sequence[Row], *, rate: float) -> tuple[float, ...]:
        """Return the seconds at which ``rows`` are sent, ascending, ``rate`` a second on average.

        Bursts have their own rhythm and leave ``rate`` aside.
        """
        if self.kind == "burst":
            size = self.size or len(rows)
            return tuple(index // size * self.every for index in range(len(rows)))
        if self.kind == "trace":
            span = rows[-1].at - rows[0].at
            stretch = (len(rows) - 1) / rate / span if span > 0 else 0.0
            return tuple((row.at - rows[0].at) * stretch for row in rows)
        chance = random.Random(f"arrivals:{self.seed}")
        return tuple(accumulate(chance.expovariate(1.0) / rate for _ in rows))
