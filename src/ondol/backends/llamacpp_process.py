"""One llama.cpp child process, from its start to its certain end.

Owns the process, its three pipes, the last lines of its log, and its loopback address and key.
Knows no restart and no request. The thread that builds a ``LlamaCppChild`` must outlive it: Linux kills
the child when the thread that started it ends.

Keeps one llama.cpp child alive: starts it, watches it, restarts it, ends it.

    starting → ready ⇄ restarting → failed          closed, from any of them

One thread owns the child for its whole life and learns of its death at once from its pipes. A
first start that fails is final; later deaths are followed by a restart after a growing delay, and
by ``failed`` after five in a row without one finished request between. Knows no chat.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ondol.backends.http_endpoint import BrokenOff, Endpoint, Unreachable
from ondol.backends.protocols import GeneratorHealth
from ondol.core.errors import OndolError

_SCRIPT = Path(__file__).with_name("llamacpp_child.py")
_LOG_LINES = 60
_STOP_SECONDS = 3.0
_SPINS = "1000"
"""How often an OpenMP thread looks before it sleeps at a barrier. The default, 300,000, burns whole
time slices when another process wants the core: decoding then falls to a sixtieth (ADR 0012)."""


@dataclass(frozen=True, slots=True)
class ChildSetup:
    """How llama.cpp is run. ``context_tokens`` is per slot; ``gpu_layers`` -1 takes all it can.

    ``adapters`` are LoRA files, loaded and not applied. ``program`` is a ``llama-server`` to run;
    without one the server inside the ``xllamacpp`` wheel is.
    """

    model_path: Path
    context_tokens: int
    slots: int
    threads: int
    batch_tokens: int
    cache_mib: int = 0
    gpu_layers: int = -1
    adapters: tuple[Path, ...] = ()
    program: Path | None = None

    def start(self, *, key: str) -> dict[str, Any]:
        """Return what the child is told to run; the key stands in no command and no environment."""
        if self.program is None:
            return {"params": self.params(key=key)}
        return {"command": self.command(), "key": key}

    def params(self, *, key: str) -> dict[str, Any]:
        """Return the values for llama.cpp's ``CommonParams`` by dotted name."""
        return {
            "model.path": str(self.model_path),
            # Not unified: each slot has its own context, so that one request cannot take
            # another's room, and a prompt that is too long for one is refused with both counts.
            "n_ctx": self.context_tokens * self.slots,
            "kv_unified": False,
            "n_parallel": self.slots,
            "n_batch": self.batch_tokens,
            "n_ubatch": self.batch_tokens,
            "cpuparams.n_threads": self.threads,
            "cpuparams_batch.n_threads": self.threads,
            "n_gpu_layers": self.gpu_layers,
            # May restore another conversation (ggml-org/llama.cpp issue 27148).
            "cache_ram_mib": self.cache_mib,
            "cache_idle_slots": False,
            "api_keys": [key],
            "port": 0,
            "ui": False,
            "endpoint_metrics": False,
            "endpoint_props": False,
            "verbosity": 2,
            "lora_adapters": [str(path) for path in self.adapters],
        }

    def command(self) -> list[str]:
        """Return the command line of ``program`` that says the same as ``params``."""
        threads, batch = str(self.threads), str(self.batch_tokens)
        command = [
            str(self.program), "--offline", "--model", str(self.model_path),
            "--ctx-size", str(self.context_tokens * self.slots), "--no-kv-unified",
            "--parallel", str(self.slots), "--batch-size", batch, "--ubatch-size", batch,
            "--threads", threads, "--threads-batch", threads,
            "--cache-ram", str(self.cache_mib), "--no-cache-idle-slots",
            "--host", "127.0.0.1", "--port", "0", "--no-ui", "--slots",
            "--log-colors", "off", "--verbosity", "3",
        ]  # fmt: skip
        if self.gpu_layers >= 0:
            command += ["--n-gpu-layers", str(self.gpu_layers)]
        if self.adapters:
            files = ",".join(str(path) for path in self.adapters)
            command += ["--lora", files, "--lora-init-without-apply"]
        return command


class LlamaCppChild:
    """A started process. ``pump`` must be called by one thread until ``ended``."""

    def __init__(self, setup: ChildSetup) -> None:
        self._key = secrets.token_urlsafe(32)
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(_SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=_environment(),
        )
        self.dead = threading.Event()
        self.endpoint: Endpoint | None = None
        self.error = ""
        self._verdict = ""
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._partial: dict[str, bytes] = {"report": b"", "log": b""}
        self._wake_read, self._wake_write = os.pipe()
        self._selector = selectors.DefaultSelector()
        self._wake_lock = threading.Lock()
        for pipe, name in ((self._process.stdout, "report"), (self._process.stderr, "log")):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
                self._selector.register(pipe.fileno(), selectors.EVENT_READ, name)
        self._selector.register(self._wake_read, selectors.EVENT_READ, "wake")
        self._send({"parent": os.getpid(), **setup.start(key=self._key)})

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        """The last lines the process wrote, oldest first."""
        return "\n".join(self._log)

    def pump(self, timeout: float) -> None:
        """Wait at most ``timeout`` seconds for news of the process and take it in."""
        for key, _ in self._selector.select(timeout):
            if key.data == "wake":
                os.read(self._wake_read, 64)
                continue
            data = os.read(key.fd, 65_536)
            if data:
                self._take(key.data, data)
            else:
                self._selector.unregister(key.fd)
        if len(self._selector.get_map()) == 1:  # both pipes have closed: it is ending
            self._reap()

    def wake(self) -> None:
        """From any thread: make ``pump`` return."""
        with self._wake_lock:
            if not self.dead.is_set():
                os.write(self._wake_write, b"x")

    def kill(self, reason: str) -> None:
        """End the process at once; ``reason`` is how its end will be described."""
        self._verdict = reason
        self._kill_group()

    def stop(self) -> None:
        """Let the process end by itself, kill it if it does not, and free everything."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill_group()
        self._reap()

    def describe_end(self) -> str:
        """Return how the process ended, and what it said about that."""
        if self._verdict:
            return self._verdict
        code = self._process.poll()
        if code == -signal.SIGKILL:
            return "llama.cpp was killed (signal 9): from outside, or out of memory"
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        said = self.error or self._last_words()
        return f"llama.cpp ended with {how}{': ' if said else ''}{said}"

    def _kill_group(self) -> None:
        """Kill the process and what it started: it leads a session of its own."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def _last_words(self) -> str:
        """Return the log line that explains an end: a failed check, or an error while loading."""
        marks = ["GGML_ASSERT", "terminate called", "what():"]
        if self.endpoint is None:
            marks += [" E ", "error"]
        return next((line for line in reversed(self._log) if any(m in line for m in marks)), "")

    def _send(self, message: dict[str, Any]) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):  # it has ended already, which pump will see
                self._process.stdin.write(json.dumps(message).encode() + b"\n")
                self._process.stdin.flush()

    def _take(self, name: str, data: bytes) -> None:
        *lines, self._partial[name] = (self._partial[name] + data).split(b"\n")
        for line in lines:
            text = line.decode("utf-8", "replace").rstrip()
            if name == "report":
                self._read_report(text)
            elif text:
                self._log.append(text)

    def _read_report(self, text: str) -> None:
        report = json.loads(text)
        if error := report.get("error"):
            self.error = f"{error} ({self._last_words()})" if self._last_words() else error
        if address := report.get("address"):
            self.endpoint = Endpoint(address, key=self._key)

    def _reap(self) -> None:
        if self.dead.is_set():
            return
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._selector.close()
        with self._wake_lock:
            os.close(self._wake_read)
            os.close(self._wake_write)
            self.dead.set()


def _environment() -> dict[str, str]:
    """Return the child's environment: ours without settings, and a patient OpenMP.

    ``LLAMA_*`` variables are options of llama.cpp, and would open what we leave closed.
    """
    ours = {n: v for n, v in os.environ.items() if not n.startswith(("ONDOL_", "LLAMA_"))}
    return {"GOMP_SPINCOUNT": _SPINS} | ours


_log = logging.getLogger("ondol.llamacpp")

_TICK_SECONDS = 1.0
_PROBES = 3


@dataclass(frozen=True, slots=True)
class SupervisorLimits:
    """How long things may take, in seconds, and how many deaths in a row are too many.

    A request without news for ``stall`` makes the child be probed; three probes without an answer
    within ``probe`` each count as a hang, and it is killed.
    """

    load: float = 300.0
    stall: float = 60.0
    probe: float = 10.0
    first_delay: float = 0.2
    longest_delay: float = 10.0
    deaths: int = 5

    def delay(self, deaths: int) -> float:
        """Return how long to wait before the restart that follows the ``deaths``-th death."""
        return float(min(self.longest_delay, self.first_delay * 2.0 ** (deaths - 1)))


@dataclass(slots=True, eq=False)
class Watch:
    """One running request, as the stall watch sees it."""

    child: LlamaCppChild
    last_news: float = field(default_factory=time.monotonic)

    def news(self) -> None:
        self.last_news = time.monotonic()


class Supervisor:
    """The state machine and its thread.

    ``inspect`` is called with each new child's endpoint before it counts as ready; an error it
    raises counts as a death. ``on_state`` hears every change, in the supervisor's thread.
    """

    def __init__(
        self,
        setup: ChildSetup,
        *,
        inspect: Callable[[Endpoint], None],
        patience: SupervisorLimits,
        on_state: Callable[[GeneratorHealth], None] | None = None,
    ) -> None:
        self._setup = setup
        self._inspect = inspect
        self._patience = patience
        self._on_state = on_state
        self._changed = threading.Condition()
        self._health = GeneratorHealth("starting", reason="the model is loading")
        self._child: LlamaCppChild | None = None
        self._watches: set[Watch] = set()
        self._deaths = 0
        self._restarts = 0
        self._closing = False
        self._was_ready = False
        self._thread = threading.Thread(target=self._run, name="ondol-llamacpp", daemon=True)
        self._thread.start()

    @property
    def child(self) -> LlamaCppChild | None:
        """The process of this moment, if there is one."""
        return self._child

    def health(self) -> GeneratorHealth:
        """Return the state; a child known to be dead is never ``ready``."""
        with self._changed:
            if self._health.ready and not self._is_alive():
                return GeneratorHealth("restarting", "llama.cpp has just ended", self._restarts)
            return self._health

    def wait_started(self) -> GeneratorHealth:
        """Return the state once it is no longer ``starting``."""
        with self._changed:
            self._changed.wait_for(lambda: self._health.state != "starting")
            return self._health

    def begin(self) -> Watch | None:
        """Return a watch on the child that serves now, or ``None`` when there is none."""
        with self._changed:
            if self._child is None or not self._health.ready or not self._is_alive():
                return None
            watch = Watch(self._child)
            self._watches.add(watch)
            return watch

    def end(self, watch: Watch, *, finished: bool) -> None:
        """Stop watching; a ``finished`` request proves that the child works."""
        with self._changed:
            self._watches.discard(watch)
            if finished and watch.child is self._child:
                self._deaths = 0

    def close(self) -> None:
        """End the child and the thread; safe to call twice."""
        with self._changed:
            self._closing = True
            child = self._child
            self._changed.notify_all()
        if child is not None:
            child.wake()
        self._thread.join()

    def _is_alive(self) -> bool:
        return self._child is not None and not self._child.dead.is_set()

    def _run(self) -> None:
        while not self._closing:
            try:
                reason = self._live()
            except Exception as error:
                _log.exception("llama.cpp could not be supervised")
                reason = str(error)
            if not self._closing:
                self._mourn(reason)
        self._become(GeneratorHealth("closed", restarts=self._restarts))

    def _live(self) -> str:
        """Start a child, tend it until it is dead, and return how it died."""
        child = LlamaCppChild(self._setup)
        with self._changed:
            self._child = child
        began = time.monotonic()
        condemned = False
        try:
            while not child.dead.is_set() and not self._closing:
                child.pump(_TICK_SECONDS)
                if not condemned and (verdict := self._judge(child, began)):
                    condemned = True
                    child.kill(verdict)
        finally:
            with self._changed:
                self._child = None
            child.stop()
        if child.log:
            _log.debug("last lines of llama.cpp:\n%s", child.log)
        return child.describe_end()

    def _judge(self, child: LlamaCppChild, began: float) -> str:
        """Move a loaded child to ready; return why a child must be killed, or nothing."""
        if child.dead.is_set():
            return ""
        if self._health.ready:
            return self._find_hang(child)
        if child.endpoint is None:
            if time.monotonic() - began > self._patience.load:
                return f"llama.cpp did not load the model within {self._patience.load:g} s"
            return ""
        try:
            self._inspect(child.endpoint)
        except (OndolError, Unreachable, BrokenOff) as error:
            return f"llama.cpp loaded but does not answer: {error}"
        self._was_ready = True
        _log.info("llama.cpp is ready after %.1f s", time.monotonic() - began)
        self._become(GeneratorHealth("ready", restarts=self._restarts))
        return ""

    def _find_hang(self, child: LlamaCppChild) -> str:
        with self._changed:
            oldest = min((watch.last_news for watch in self._watches), default=None)
        if oldest is None or time.monotonic() - oldest < self._patience.stall:
            return ""
        if child.endpoint is not None and self._answers(child.endpoint):
            return ""
        return f"llama.cpp hung: no news for {self._patience.stall:g} s and {_PROBES} probes failed"

    def _answers(self, endpoint: Endpoint) -> bool:
        """Ask for the slots, which only the thread that computes can answer."""
        for _ in range(_PROBES):
            if self._closing:
                return True
            try:
                endpoint.call("GET", "/slots", timeout=self._patience.probe)
            except (Unreachable, BrokenOff):
                continue
            return True
        return False

    def _mourn(self, reason: str) -> None:
        """Note a death; wait before the restart, or give up."""
        self._deaths += 1
        if not self._was_ready or self._deaths >= self._patience.deaths:
            times = f" ({self._deaths} times in a row)" if self._deaths > 1 else ""
            _log.error("llama.cpp failed for good%s: %s", times, reason)
            self._become(GeneratorHealth("failed", reason + times, self._restarts))
            with self._changed:
                self._changed.wait_for(lambda: self._closing)
            return
        delay = self._patience.delay(self._deaths)
        _log.warning("%s; restarting in %.1f s", reason, delay)
        self._restarts += 1
        self._become(GeneratorHealth("restarting", reason, self._restarts))
        with self._changed:
            self._changed.wait_for(lambda: self._closing, timeout=delay)

    def _become(self, health: GeneratorHealth) -> None:
        with self._changed:
            self._health = health
            self._changed.notify_all()
        if self._on_state is not None:
            self._on_state(health)
