"""One streamed chat over one connection, read with as little work a token as Python allows.

The client shares the cores with the server it measures: ready-made request bytes, no JSON but of
the last events, and of a token only its time. Understands HTTP/1.1 with ``Content-Length``, chunks
or neither, and server-sent events. Knows no schedule. Imports the standard library only.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["ok", "refused", "failed", "left", "timeout"]

REFUSALS = (429, 503)
_CONTENT = re.compile(rb'"(?:content|reasoning_content)":\s*"(?!")')
_FINISH = re.compile(rb'"finish_reason":\s*"(\w+)"')


@dataclass(slots=True)
class StreamedReply:
    """What came, and when: ``begun`` (connecting), ``head``, each of ``tokens``, and ``end``.

    Times are the loop's seconds. ``retry_after`` is ``None`` where the header is missing.
    """

    begun: float = 0.0
    head: float = 0.0
    end: float = 0.0
    tokens: list[float] = field(default_factory=list)
    outcome: Outcome = "failed"
    status: int = 0
    code: str = ""
    finish: str = ""
    retry_after: float | None = None
    usage: dict[str, Any] = field(default_factory=dict)


class Exchange(asyncio.Protocol):
    """Sends ``request`` when connected and reads until the answer ends; ``over`` is its future."""

    def __init__(self, request: bytes, *, loop: asyncio.AbstractEventLoop) -> None:
        self.reply = StreamedReply(begun=loop.time())
        self.over: asyncio.Future[StreamedReply] = loop.create_future()
        self._request = request
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._raw = bytearray()
        self._body = bytearray()
        self._chunked = False
        self._length = -1
        self._finished = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport) or self.over.done():
            transport.close()
            return
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._raw += data
        if not self.reply.head and not self._read_head():
            return
        whole = self._take_body()
        if self.reply.status == 200:
            self._read_events()
        if whole:
            self._end()

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self.reply.code = self.reply.code or type(error).__name__
        self._end()

    def leave(self, outcome: Outcome) -> None:
        """Hang up at once, as a client that has gone."""
        if not self.over.done():
            self.reply.outcome = outcome
            self._settle()
        if self._transport is not None:
            self._transport.abort()

    def fail(self, error: Exception) -> None:
        """Note that no connection could be had."""
        self.reply.code = type(error).__name__
        self._settle()

    def _read_head(self) -> bool:
        end = self._raw.find(b"\r\n\r\n")
        if end < 0:
            return False
        first, *lines = bytes(self._raw[:end]).decode("latin-1").split("\r\n")
        del self._raw[: end + 4]
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        self.reply.head = self._loop.time()
        self.reply.status = int(first.split(" ", 2)[1])
        self._chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        self._length = int(headers.get("content-length", -1))
        if "retry-after" in headers:
            self.reply.retry_after = float(headers["retry-after"])
        return True

    def _take_body(self) -> bool:
        """Move what is whole from the raw bytes to the body; return whether the body is at its end."""
        if not self._chunked:
            self._body += self._raw
            self._length -= len(self._raw) if self._length >= 0 else 0
            self._raw.clear()
            return self._length == 0
        while (line := self._raw.find(b"\r\n")) >= 0:
            size = int(self._raw[:line].split(b";")[0], 16)
            if len(self._raw) < line + size + 4:
                return False
            self._body += self._raw[line + 2 : line + 2 + size]
            del self._raw[: line + size + 4]
            if size == 0:
                return True
        return False

    def _read_events(self) -> None:
        now = self._loop.time()
        while (end := self._body.find(b"\n\n")) >= 0:
            event = bytes(self._body[:end])
            del self._body[: end + 2]
            if _CONTENT.search(event):
                self.reply.tokens.append(now)
            elif event.startswith(b"data: [DONE]"):
                self._finished = True
            else:
                self._read_event(event)

    def _read_event(self, event: bytes) -> None:
        if found := _FINISH.search(event):
            self.reply.finish = found[1].decode()
        if b'"completion_tokens"' in event or b'"error"' in event:
            data: dict[str, Any] = json.loads(event.partition(b"data:")[2])
            self.reply.usage = data.get("usage") or self.reply.usage
            if error := data.get("error"):
                self.reply.code = _code(error)

    def _end(self) -> None:
        if self.over.done():
            return
        reply = self.reply
        if reply.status == 200 and self._finished and not reply.code:
            reply.outcome = "ok"
        elif reply.status in REFUSALS:
            reply.outcome = "refused"
        if reply.status != 200 and self._body:
            reply.code = _code_of(bytes(self._body)) or reply.code
        self._settle()

    def _settle(self) -> None:
        if not self.over.done():
            self.reply.end = self._loop.time()
            self.over.set_result(self.reply)
        if self._transport is not None:
            self._transport.close()


def _code_of(body: bytes) -> str:
    try:
        return _code(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return ""


def _code(error: Any) -> str:
    if not isinstance(error, dict):
        return str(error)[:80]
    return str(error.get("code") or error.get("type") or error.get("message") or "error")[:80]


async def exchange(
    host: str,
    port: int,
    request: bytes,
    *,
    patience: float,
    leave_after: float | None = None,
) -> StreamedReply:
    """Ask once and return what came; hangs up after ``patience`` or ``leave_after`` seconds.

    Raises nothing: what goes wrong is the reply's outcome and code.
    """
    loop = asyncio.get_running_loop()
    asked = Exchange(request, loop=loop)
    limits = [loop.call_later(patience, asked.leave, "timeout")]
    if leave_after is not None:
        limits.append(loop.call_later(leave_after, asked.leave, "left"))
    try:
        try:
            await loop.create_connection(lambda: asked, host, port)
        except OSError as error:
            asked.fail(error)
        return await asked.over
    finally:
        for limit in limits:
            limit.cancel()
        asked.leave("left")
