"""One reader child as its parent sees it: start, send a request, receive frames, kill."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ondol.core.errors import OndolError
from ondol.text.readers.wire import HEADER, decode_body, encode_frame

_IMPORT_ROOT = Path(__file__).resolve().parents[3]
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


class Child:
    """A running worker process. Not thread-safe but for ``interrupt``."""

    def __init__(self, *, memory_bytes: int) -> None:
        environment = dict(os.environ, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
        search = [str(_IMPORT_ROOT), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(part for part in search if part)
        # -P: a module lying in the current folder must not be imported in place of a library
        command = [sys.executable, "-P", "-m", "ondol.text.readers.worker", str(memory_bytes)]
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
                hint="Run `python -m ondol.text.readers.worker 0` to see its own message.",
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
