"""Reads standing prefixes into blank slots of a generator, when nobody else wants it.

One thread, started by the first ``set``. A real request makes a running read stop at once; it is
tried again when the generator is at rest. After a restart all are read again. Knows no process:
``read`` does the work and says how it went.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

from ondol.core.cancel import CancelToken
from ondol.core.types import Message

Prefix = Sequence[Message]
Outcome = Literal["read", "later", "never"]
_GIVE_WAY_SECONDS = 5.0


class Preloader:
    """The prefixes still to be read, and the thread that reads them."""

    def __init__(self, read: Callable[[Prefix, CancelToken], Outcome]) -> None:
        self._read = read
        self._changed = threading.Condition()
        self._all: tuple[Prefix, ...] = ()
        self._due: deque[Prefix] = deque()
        self._running: CancelToken | None = None
        self._chances = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    def set(self, prefixes: Sequence[Prefix]) -> None:
        """Read ``prefixes`` from now on, in this order, in place of those set before."""
        with self._changed:
            self._all = tuple(prefixes)
            if self._thread is None and self._all and not self._closed:
                self._thread = threading.Thread(
                    target=self._run, name="ondol-llamacpp-preload", daemon=True
                )
                self._thread.start()
        self.begin()

    def begin(self) -> None:
        """Note that a child is ready whose slots hold nothing."""
        with self._changed:
            self._due = deque(self._all)
            self._chances += 1
            self._changed.notify_all()

    def chance(self) -> None:
        """Note that a request has ended, so that the generator may be at rest."""
        if self._due:
            with self._changed:
                self._chances += 1
                self._changed.notify_all()

    def give_way(self) -> bool:
        """Stop the read that runs, and return whether there was one, now gone."""
        if self._running is None:
            return False
        with self._changed:
            running = self._running
        if running is None:
            return True
        running.cancel()
        with self._changed:
            return self._changed.wait_for(lambda: self._running is not running, _GIVE_WAY_SECONDS)

    def wait_read(self, timeout: float) -> bool:
        """Return whether nothing is left to read within ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._due, timeout)

    def close(self) -> None:
        """End the thread; a running read is stopped."""
        with self._changed:
            self._closed = True
            self._due.clear()
            running, thread = self._running, self._thread
            self._changed.notify_all()
        if running is not None:
            running.cancel()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_GIVE_WAY_SECONDS)

    def _run(self) -> None:
        tried = -1
        while True:
            with self._changed:
                while not (self._closed or (self._due and self._chances != tried)):
                    self._changed.wait()
                if self._closed:
                    return
                prefix, chances = self._due[0], self._chances
                running = self._running = CancelToken()
            outcome = self._read(prefix, running)
            with self._changed:
                self._running = None
                if outcome == "later":
                    tried = chances
                elif self._due and self._due[0] is prefix:
                    self._due.popleft()
                self._changed.notify_all()
