"""Reading in a child process: a hostile file can cost its own result, never the server.

A file that takes too long is ``timeout``, one that needs too much memory ``too_large``, one that
kills the child ``damaged``; the next file gets a fresh child. Results stream in bounded batches.
The child is a new interpreter (no fork), started at the first file and replaced now and then.
"""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import asdict
from pathlib import Path

from ondol.core.errors import Cancelled
from ondol.text.readers.child import Child, ChildDied, ChildTimedOut
from ondol.text.readers.contract import ReadFailure, ReadItems, ReadLimits, failed
from ondol.text.readers.wire import unpack_item

MEMORY_BYTES = 2 * 1024**3
FILES_PER_CHILD = 200


class IsolatedReader:
    """``read`` and ``read_bytes`` in one reused child process; one file at a time.

    A second caller waits for the first one's iterator to end. ``memory_bytes`` bounds the child's
    address space, ``files_per_child`` how many files it reads before it is replaced.
    """

    def __init__(
        self, *, memory_bytes: int = MEMORY_BYTES, files_per_child: int = FILES_PER_CHILD
    ) -> None:
        self._memory = memory_bytes
        self._files = files_per_child
        self._turn = threading.Lock()
        self._child: Child | None = None
        self._closed = False

    def read(self, path: Path, *, limits: ReadLimits) -> ReadItems:
        """Yield what ``readers.read`` yields for ``path``. Abandoning the iterator ends the child."""
        return self._read(str(path), None, limits)

    def read_bytes(self, data: bytes, *, name: str, limits: ReadLimits) -> ReadItems:
        """Yield what ``readers.read_bytes`` yields for an upload."""
        return self._read(name, data, limits)

    @property
    def child_pid(self) -> int | None:
        """Return the child's process id, or ``None`` when none runs."""
        child = self._child
        return child.pid if child else None

    def close(self) -> None:
        """End the child, also in the middle of a file; reads then raise ``Cancelled``.

        Callable from any thread: the one that reads notices, and reaps the child.
        """
        self._closed = True
        if self._turn.acquire(blocking=False):
            try:
                self._drop()
            finally:
                self._turn.release()
        elif (child := self._child) is not None:
            child.interrupt()

    def __enter__(self) -> IsolatedReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, name: str, data: bytes | None, limits: ReadLimits) -> ReadItems:
        with self._turn:
            self._refuse_closed()
            ended = False
            try:
                yield from self._items(name, data, limits)
                ended = True
            except ChildTimedOut:
                yield _timed_out(name, limits)
            except ChildDied as death:
                self._refuse_closed()
                yield _killed(name, death, limits)
            finally:
                if not ended or self._child is None or self._child.files >= self._files:
                    self._drop()

    def _items(self, name: str, data: bytes | None, limits: ReadLimits) -> ReadItems:
        child = self._sent(name, data, limits)
        left = limits.seconds
        while True:
            started = time.monotonic()
            frame = child.receive(left)
            left = max(0.0, left - (time.monotonic() - started))  # the caller's own time is free
            yield from (unpack_item(item) for item in frame["items"])
            if frame.get("end"):
                return

    def _sent(self, name: str, data: bytes | None, limits: ReadLimits) -> Child:
        """Hand the request to a child; one that died while idle is replaced once."""
        size = None if data is None else len(data)
        request = {"path": name, "size": size, "limits": asdict(limits)}
        if self._child is not None:
            try:
                self._child.send(request, data or b"")
                return self._child
            except ChildDied:
                self._drop()
        self._child = Child(memory_bytes=self._memory)
        self._child.send(request, data or b"")
        return self._child

    def _refuse_closed(self) -> None:
        if self._closed:
            raise Cancelled("the document reader was closed", hint="Open a new one.")

    def _drop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()


def _timed_out(name: str, limits: ReadLimits) -> ReadFailure:
    return failed(
        name,
        "timeout",
        f"{name!r} was not read within {limits.seconds:g} s",
        hint="Split it, or raise `ingest.read_seconds`.",
    )


def _killed(name: str, death: ChildDied, limits: ReadLimits) -> ReadFailure:
    if death.signal is signal.SIGXCPU:
        return _timed_out(name, limits)
    if death.signal is signal.SIGKILL:
        return failed(
            name,
            "too_large",
            f"the system ended the reader of {name!r}, most likely for its memory",
            hint="Split it into smaller files.",
        )
    return failed(
        name,
        "damaged",
        f"{name!r} ended its reader process ({death})",
        hint="Open it with another program, save it again, and read that.",
    )
