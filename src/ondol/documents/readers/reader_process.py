"""One reader child as its parent sees it: start, send a request, receive frames, kill.

Reading in a child process: a hostile file can cost its own result, never the server.

A file that takes too long is ``timeout``, one that needs too much memory ``too_large``, one that
kills the child ``damaged``; the next file gets a fresh child. Results stream in bounded batches.
The child is a new interpreter (no fork), started at the first file and replaced now and then.

Frames between the isolated reader and its child: a length, then JSON.

JSON and not pickle: the child parses hostile files, and what it says must not run in the parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ondol.core.errors import Cancelled, OndolError, ReadError
from ondol.core.process import import_path
from ondol.core.types import Page, ReadDocument
from ondol.documents.readers.reader_contract import (
    ReadFailure,
    ReadItem,
    ReadItems,
    ReadLimits,
    failed,
)

HEADER = struct.Struct(">I")


def encode_frame(value: Mapping[str, Any]) -> bytes:
    """Return ``value`` as one frame."""
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return HEADER.pack(len(body)) + body


def decode_body(body: bytes) -> dict[str, Any]:
    """Return the value of a frame's body."""
    value: dict[str, Any] = json.loads(body.decode("utf-8", "surrogatepass"))
    return value


def pack_item(item: ReadItem) -> dict[str, Any]:
    """Return ``item`` in JSON shape."""
    if isinstance(item, ReadFailure):
        error = item.error
        return {
            "source": item.source,
            "code": error.code,
            "message": error.message,
            "hint": error.hint,
        }
    return {
        "source": item.source,
        "title": item.title,
        "text": item.text,
        "pages": [[page.number, page.start, page.end] for page in item.pages],
        "metadata": dict(item.metadata),
        "media_type": item.media_type,
        "warnings": list(item.warnings),
    }


def unpack_item(value: Mapping[str, Any]) -> ReadItem:
    """Return the item that ``pack_item`` packed."""
    if "code" in value:
        error = ReadError(
            value["message"], code=value["code"], hint=value["hint"], param=value["source"]
        )
        return ReadFailure(value["source"], error)
    return ReadDocument(
        source=value["source"],
        title=value["title"],
        text=value["text"],
        pages=tuple(Page(*page) for page in value["pages"]),
        metadata=value["metadata"],
        media_type=value["media_type"],
        warnings=tuple(value["warnings"]),
    )


_START_SECONDS = 60.0
_CHUNK = 1 << 20


class ChildTimedOut(Exception):
    """No frame came within the time given."""


class ChildDied(Exception):
    """The child ended; ``signal`` is the one that killed it, or ``None``."""

    def __init__(self, returncode: int) -> None:
        super().__init__(returncode)
        self.returncode = returncode
        self.signal = signal.Signals(-returncode) if returncode < 0 else None

    def __str__(self) -> str:
        return self.signal.name if self.signal else f"exit code {self.returncode}"


class ReaderChild:
    """A running worker process. Not thread-safe but for ``interrupt``."""

    def __init__(self, *, memory_bytes: int) -> None:
        environment = dict(os.environ, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
        environment["PYTHONPATH"] = import_path()
        # -P: a module lying in the current folder must not be imported in place of a library
        command = [
            sys.executable,
            "-P",
            "-m",
            "ondol.documents.readers.reader_worker",
            str(memory_bytes),
        ]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # the terminal's Ctrl-C is the parent's to handle
        )
        self._buffer = bytearray()
        self.files = 0
        try:
            self.receive(_START_SECONDS)
        except (ChildTimedOut, ChildDied) as error:
            self.kill()
            raise OndolError(
                f"the document reader process did not start ({error or 'no answer'})",
                hint="Run `python -m ondol.documents.readers.reader_worker 0` to see its own message.",
            ) from error

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, request: dict[str, Any], data: bytes = b"") -> None:
        """Send a request and the bytes that belong to it. Raises ``ChildDied``."""
        if self._process.stdin is None:
            raise ChildDied(self._end())
        try:
            self._process.stdin.write(encode_frame(request))
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise ChildDied(self._end()) from error
        self.files += 1

    def receive(self, seconds: float) -> dict[str, Any]:
        """Return the next frame. Raises ``ChildTimedOut`` after ``seconds``, or ``ChildDied``."""
        deadline = time.monotonic() + seconds
        while True:
            if len(self._buffer) >= HEADER.size:
                length = HEADER.unpack_from(self._buffer)[0] + HEADER.size
                if len(self._buffer) >= length:
                    body = bytes(self._buffer[HEADER.size : length])
                    del self._buffer[:length]
                    return decode_body(body)
            self._fill(deadline)

    def interrupt(self) -> None:
        """Kill the child and leave the reaping to whoever reads from it; safe from any thread."""
        if self._process.returncode is None:  # not reaped: its number is still its own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # and a program that recognises a page

    def kill(self) -> None:
        """End the child at once and reap it; harmless when it has ended."""
        self.interrupt()
        self._end()

    def _fill(self, deadline: float) -> None:
        if self._process.stdout is None:
            raise ChildDied(self._end())
        descriptor = self._process.stdout.fileno()
        left = deadline - time.monotonic()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN | select.POLLHUP)
        if left <= 0 or not poll.poll(left * 1000):
            raise ChildTimedOut
        piece = os.read(descriptor, _CHUNK)
        if not piece:
            raise ChildDied(self._end())
        self._buffer += piece

    def _end(self) -> int:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # unsent bytes of a dead child
                    stream.close()
        return self._process.wait()


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
        self._child: ReaderChild | None = None
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

    def _sent(self, name: str, data: bytes | None, limits: ReadLimits) -> ReaderChild:
        """Hand the request to a child; one that died while idle is replaced once."""
        size = None if data is None else len(data)
        request = {"path": name, "size": size, "limits": asdict(limits)}
        if self._child is not None:
            try:
                self._child.send(request, data or b"")
                return self._child
            except ChildDied:
                self._drop()
        self._child = ReaderChild(memory_bytes=self._memory)
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
