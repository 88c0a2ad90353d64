"""Keeps one OpenVINO GenAI child alive and carries its calls: starts, restarts and ends it.

    starting → ready ⇄ restarting → failed          closed, from any of them

One thread owns the child for its whole life (Linux kills the child with that thread) and hands each
report to the call it belongs to; a death ends every open call. A first start that fails is final, as
is the fifth death in a row without a finished call between. Knows no chat.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ondol.backends.protocols import GeneratorHealth

_SCRIPT = Path(__file__).with_name("openvino_genai_child.py")
_log = logging.getLogger("ondol.openvino_genai")

_DEATHS = 5
_FIRST_DELAY, _LONGEST_DELAY = 0.2, 10.0
_STOP_SECONDS = 3.0
_LOG_LINES = 40


class ChildDeath(Exception):
    """The child ended while calls were open; ``blamed`` are those whose JSON schema was why.

    ``wanted`` says that it was closed.
    """

    def __init__(self, reason: str, *, blamed: tuple[int, ...] = (), wanted: bool = False) -> None:
        super().__init__(reason)
        self.blamed = blamed
        self.wanted = wanted


class ChildCall:
    """One exchange with the child; ``number`` is its name on the wire."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.reports: queue.SimpleQueue[dict[str, Any] | ChildDeath] = queue.SimpleQueue()

    def next(self) -> dict[str, Any]:
        """Return the next report; raises ``ChildDeath``."""
        report = self.reports.get()
        if isinstance(report, ChildDeath):
            raise report
        return report


class GenAIProcess:
    """The child and its thread. ``setup`` is what the child is told first; see its script."""

    def __init__(
        self,
        setup: dict[str, Any],
        *,
        on_state: Callable[[GeneratorHealth], None] | None = None,
    ) -> None:
        self._setup = setup
        self._on_state = on_state
        self._changed = threading.Condition()
        self._health = GeneratorHealth("starting", reason="the model is loading")
        self._process: subprocess.Popen[bytes] | None = None
        self._calls: dict[int, ChildCall] = {}
        self._numbers = 0
        self._deaths = self._restarts = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ondol-openvino-genai", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """The process of this moment, for diagnosis."""
        process = self._process
        return process.pid if process is not None else None

    def health(self) -> GeneratorHealth:
        with self._changed:
            return self._health

    def wait_started(self) -> GeneratorHealth:
        """Return the state once it is no longer ``starting``."""
        with self._changed:
            self._changed.wait_for(lambda: self._health.state != "starting")
            return self._health

    def open(self, command: dict[str, Any]) -> ChildCall | None:
        """Send a command and return its call, or ``None`` when no child is ready."""
        with self._changed:
            if not self._health.ready:
                return None
            self._numbers += 1
            call = ChildCall(self._numbers)
            self._calls[call.number] = call
            self._send(command | {"call": call.number})
        return call

    def cancel(self, call: ChildCall) -> None:
        """Ask for the call's end, which its reports will tell."""
        with self._changed:
            if call.number in self._calls:
                self._send({"call": call.number, "cancel": True})

    def end(self, call: ChildCall, *, finished: bool) -> None:
        """Forget the call; a ``finished`` one proves that the child works."""
        with self._changed:
            self._calls.pop(call.number, None)
            if finished:
                self._deaths = 0

    def close(self) -> None:
        """End the child and the thread; safe to call twice."""
        self._closing.set()
        with self._changed:
            process = self._process
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        self._thread.join()

    def _send(self, message: dict[str, Any]) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(
                OSError, ValueError
            ):  # it has ended, which its thread will see
                self._process.stdin.write(json.dumps(message).encode() + b"\n")
                self._process.stdin.flush()

    def _run(self) -> None:
        while not self._closing.is_set():
            death = self._live()
            if not self._closing.is_set():
                self._mourn(death)
        with self._changed:
            self._end_calls(ChildDeath("the generator has been closed", wanted=True))
        self._become(GeneratorHealth("closed", restarts=self._restarts))

    def _live(self) -> ChildDeath:
        """Start a child, carry its reports until it is dead, and return how it died."""
        log: deque[str] = deque(maxlen=_LOG_LINES)
        with subprocess.Popen(
            [sys.executable, "-P", str(_SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={k: v for k, v in os.environ.items() if not k.startswith("ONDOL_")},
        ) as process:
            with self._changed:
                self._process = process
                if self._closing.is_set():
                    process.kill()
                self._send(self._setup | {"parent": os.getpid()})
            drain = threading.Thread(target=_drain, args=(process, log), daemon=True)
            drain.start()
            death = self._carry(process)
            drain.join()
            code = process.wait()
        with self._changed:
            self._process = None
        if log:
            _log.debug("last lines of OpenVINO GenAI:\n%s", "\n".join(log))
        if death is not None:
            return death
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        said = f": {log[-1]}" if log else ""
        return ChildDeath(f"OpenVINO GenAI ended with {how}{said}")

    def _carry(self, process: subprocess.Popen[bytes]) -> ChildDeath | None:
        """Hand reports to their calls until the child says no more; return what it died of."""
        death: ChildDeath | None = None
        for line in process.stdout or ():
            report = json.loads(line)
            if report.get("ready"):
                self._become(GeneratorHealth("ready", restarts=self._restarts))
            elif "call" in report:
                with self._changed:
                    call = self._calls.get(report["call"])
                if call is not None:
                    call.reports.put(report)
            else:
                reason = report.get("fatal") or report.get("error")
                death = ChildDeath(str(reason), blamed=tuple(report.get("blamed", ())))
        return death

    def _mourn(self, death: ChildDeath) -> None:
        """Tell everybody of a death, and wait before the next start; ``failed`` ends the thread."""
        was_starting = self.health().state == "starting"
        self._deaths += 1
        final = was_starting or self._deaths >= _DEATHS
        state = "failed" if final else "restarting"
        self._become(
            GeneratorHealth(
                "failed" if final else "restarting", reason=str(death), restarts=self._restarts
            )
        )
        with self._changed:
            self._end_calls(death)
        _log.warning("OpenVINO GenAI died (%s): %s", state, death)
        if final:
            self._closing.wait()
            return
        self._closing.wait(min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** (self._deaths - 1)))
        self._restarts += 1

    def _end_calls(self, death: ChildDeath) -> None:
        for call in self._calls.values():
            call.reports.put(death)
        self._calls.clear()

    def _become(self, health: GeneratorHealth) -> None:
        with self._changed:
            self._health = health
            self._changed.notify_all()
        if self._on_state is not None:
            self._on_state(health)


def _drain(process: subprocess.Popen[bytes], log: deque[str]) -> None:
    for line in process.stderr or ():
        if text := line.decode("utf-8", "replace").rstrip():
            log.append(text)
