"""Keeps one llama.cpp child alive: starts it, watches it, restarts it, ends it.

    starting → ready ⇄ restarting → failed          closed, from any of them

One thread owns the child for its whole life and learns of its death at once from its pipes. A
first start that fails is final; later deaths are followed by a restart after a growing delay, and
by ``failed`` after five in a row without one finished request between. Knows no chat.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ondol.backends.base import GeneratorHealth
from ondol.backends.http_endpoint import BrokenOff, Endpoint, Unreachable
from ondol.backends.llamacpp_process import Child, ChildSetup
from ondol.core.errors import OndolError

_log = logging.getLogger("ondol.llamacpp")

_TICK_SECONDS = 1.0
_PROBES = 3


@dataclass(frozen=True, slots=True)
class Patience:
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

    child: Child
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
        patience: Patience,
        on_state: Callable[[GeneratorHealth], None] | None = None,
    ) -> None:
        self._setup = setup
        self._inspect = inspect
        self._patience = patience
        self._on_state = on_state
        self._changed = threading.Condition()
        self._health = GeneratorHealth("starting", reason="the model is loading")
        self._child: Child | None = None
        self._watches: set[Watch] = set()
        self._deaths = 0
        self._restarts = 0
        self._closing = False
        self._was_ready = False
        self._thread = threading.Thread(target=self._run, name="ondol-llamacpp", daemon=True)
        self._thread.start()

    @property
    def child(self) -> Child | None:
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
        child = Child(self._setup)
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

    def _judge(self, child: Child, began: float) -> str:
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

    def _find_hang(self, child: Child) -> str:
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
