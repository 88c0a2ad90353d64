"""One thread that builds what searches asked for, one collection after the other.

Started at the first wish; a wish repeated while it waits counts once. A failure is logged and
forgotten: what is not built is searched exactly.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_LOG = logging.getLogger("ondol.store")


class IndexBuilder:
    """Calls ``build(name)`` for every name wanted, in the order of wishing."""

    def __init__(self, build: Callable[[str], None]) -> None:
        self._build = build
        self._changed = threading.Condition()
        self._wanted: dict[str, None] = {}
        self._closed = False
        self._thread: threading.Thread | None = None

    def want(self, name: str) -> None:
        """Have ``name`` built soon; returns at once."""
        with self._changed:
            if self._closed or name in self._wanted:
                return
            self._wanted[name] = None
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ondol-index", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Drop the wishes that wait, and return when the one being built has ended."""
        with self._changed:
            self._closed = True
            self._wanted.clear()
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._wanted)
                if self._closed:
                    return
                name = next(iter(self._wanted))
            try:
                self._build(name)
            except Exception as error:  # whatever it is, this thread must live on
                _LOG.warning("index of collection %r not built: %s", name, error)
            finally:
                with self._changed:
                    self._wanted.pop(name, None)
