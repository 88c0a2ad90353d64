"""A server of our own to load: ``ondol serve`` as a child process, only its generator of weight.

Owns the process, its log's last lines and its scratch home, which shares the models and nothing
else: no document of the user's is touched. Settings are the caller's with a few laid over them.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ondol.core.errors import ProbeFailed
from ondol.core.process import import_path
from ondol.core.settings import Settings, known_keys
from ondol.lab.bench.load_plan import Target

_READY = re.compile(r"ondol is ready on (http://\S+)")
_START_SECONDS = 300.0
_STOP_SECONDS = 30.0
_LAST_LINES = 20
_OWN = ("home", "server.host", "server.port", "server.api_keys")
"""Settings of the caller's that its children do not take over."""


class ServerChild:
    """A running server at ``url``. A context manager; raises ``ProbeFailed`` if it does not start."""

    def __init__(self, settings: Settings, over: Mapping[str, Any]) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="ondol-bench-home-"))
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        share_models(settings.home, self._home)
        # -P: a module lying in the current folder must not be imported in place of a library
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ondol", "serve"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment(settings, over, home=self._home),
            cwd=self._home,
            start_new_session=True,  # the terminal's Ctrl-C is the parent's to handle
        )
        self._reader = threading.Thread(target=self._read, name="ondol-bench-log", daemon=True)
        self._reader.start()
        try:
            self.url = self._wait_ready()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def memory_mb(self, *, peak: bool = False) -> float:
        """Return the resident memory of the server and its children, now or at most."""
        return tree_memory_mb(self.pid, peak=peak)

    def close(self) -> None:
        """End the server, gently if it lets us, and remove its home; callable twice."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(_STOP_SECONDS)
        if self._process.stderr is not None:
            self._process.stderr.close()
        shutil.rmtree(self._home, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _wait_ready(self) -> str:
        until = time.monotonic() + _START_SECONDS
        while (left := until - time.monotonic()) > 0:
            try:
                line = self._lines.get(timeout=left)
            except queue.Empty:
                break
            if line is None:
                raise ProbeFailed(
                    f"the server ended while starting: {' '.join(self._last).strip()[-600:]}",
                    hint="start `ondol serve` with the same settings and see what it says",
                )
            if found := _READY.search(line):
                return found[1]
        raise ProbeFailed(
            f"the server was not ready after {_START_SECONDS:g} s",
            hint="start `ondol serve` with the same settings and see what it says",
        )

    def _read(self) -> None:
        if self._process.stderr is not None:
            for line in self._process.stderr:
                text = line.decode("utf-8", "replace")
                self._last.append(text)
                self._lines.put(text)
        self._lines.put(None)


class ServedChild(ServerChild):
    """A server for measuring its generator, which promises nothing and so refuses nothing as late."""

    def __init__(self, settings: Settings, *, model: str) -> None:
        generation = settings.generation
        over = only_generator(
            settings, model=model, slots=generation.slots, policy=generation.policy
        )
        super().__init__(settings, {**over, "lanes.chat.sla_ms": 0})
        self.target = Target(self.url, model)


def only_generator(settings: Settings, *, model: str, slots: int, policy: str) -> dict[str, Any]:
    """Return what is laid over the settings: one generator, its slots, and nothing beside it."""
    chat = settings.lanes.chat
    return {
        "models.reranker": "none",
        "models.embedder": "none",
        "cache.embeddings": "off",
        "ab.candidate": "",
        "generation.model": model,
        "generation.slots": slots,
        "generation.policy": policy,
        "lanes.chat.running": max(chat.running, slots),
        "lanes.chat.queue": chat.queue,
        "log_level": "warning",
    }


def environment(settings: Settings, over: Mapping[str, Any], *, home: Path) -> dict[str, str]:
    """Return the environment of a child whose settings are ``settings`` with ``over`` on top."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ONDOL_") and name != "USE_OPTIMIZED_MODELS"
    }
    plain = Settings()
    said = {
        key: value
        for key in known_keys()
        if key not in _OWN and (value := _value(settings, key)) != _value(plain, key)
    }
    return {
        **kept,
        **{_variable(key): _text(value) for key, value in {**said, **over}.items()},
        "ONDOL_HOME": str(home),
        "ONDOL_SERVER_PORT": "0",
        "PYTHONPATH": import_path(),
    }


def share_models(source: Path, home: Path) -> None:
    """Make ``home`` see the models and the profile of ``source``."""
    (home / "models").symlink_to(source / "models")
    with contextlib.suppress(OSError):
        shutil.copy(source / "profile.json", home / "profile.json")


def tree_memory_mb(pid: int, *, peak: bool = False) -> float:
    """Return the resident memory in MB of ``pid`` and its descendants; each one's own peak if asked."""
    field, total, pids = ("VmHWM:" if peak else "VmRSS:"), 0.0, [pid]
    while pids:
        current = pids.pop()
        folder = Path(f"/proc/{current}")
        try:
            lines = (folder / "status").read_text().splitlines()
            tasks = [(task / "children").read_text() for task in (folder / "task").iterdir()]
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6
        pids += [int(child) for text in tasks for child in text.split()]
    return total


def _value(settings: Settings, key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _variable(key: str) -> str:
    return f"ONDOL_{key.replace('.', '_').upper()}"
