"""A tiny asyncio chat server that plays its part by a script: counts words, streams, holds, refuses.

A token is a word; a prompt has ten more for its template. What becomes of each request is up to
``decide``, which is told the number of the request and may wait as long as it likes.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

TEMPLATE_TOKENS = 10


@dataclass(frozen=True)
class Answer:
    """What a request gets: ``status`` 200 streams ``tokens`` (as asked where ``None``), ``breaks``
    hangs up after them; any other status is an error with ``code`` and ``retry_after``."""

    status: int = 200
    tokens: int | None = None
    breaks: bool = False
    code: str = "overloaded"
    retry_after: str | None = None


Decide = Callable[[int, dict[str, Any]], Awaitable[Answer]]


async def always(number: int, body: dict[str, Any]) -> Answer:
    """Answer everything."""
    return Answer()


@dataclass
class ChatServer:
    """A running server: its address, and what it was asked."""

    url: str = ""
    decide: Decide = always
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    left: int = 0
    _tasks: set[asyncio.Task[Any] | None] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, one request."""
        self._tasks.add(asyncio.current_task())  # a task that waits for ever is nobody's else
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lines = head.split("\r\n")[1:-2]
            headers = {n.lower(): v.strip() for n, _, v in (x.partition(":") for x in lines)}
            body = json.loads(
                await reader.readexactly(int(headers.get("content-length", 0))) or "{}"
            )
            if head.startswith("GET"):
                _whole(writer, 200, {"object": "list", "data": [{"id": "fake"}]})
                return
            number = len(self.bodies)
            self.bodies.append(body)
            self.headers.append(headers)
            await self._answer(writer, body, await self.decide(number, body))
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left += 1
        except asyncio.CancelledError:
            pass  # the server's end
        finally:
            writer.close()

    async def _answer(
        self, writer: asyncio.StreamWriter, body: dict[str, Any], answer: Answer
    ) -> None:
        if answer.status != 200:
            more = "" if answer.retry_after is None else f"retry-after: {answer.retry_after}\r\n"
            _whole(writer, answer.status, {"error": {"code": answer.code}}, more)
            return
        usage = {
            "prompt_tokens": prompt_tokens(body),
            "completion_tokens": _wanted(body) if answer.tokens is None else answer.tokens,
        }
        if not body.get("stream"):
            _whole(writer, 200, {"usage": usage})
            return
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n")
        _event(writer, _delta({"role": "assistant", "content": ""}))
        for at in range(usage["completion_tokens"]):
            _event(writer, _delta({"content": f" {at}"}))
            await writer.drain()
        if answer.breaks:
            return
        _event(writer, _delta({}, finish="length"))
        _event(writer, {"choices": [], "usage": usage})
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
        await writer.drain()


def prompt_tokens(body: dict[str, Any]) -> int:
    """Return the words of all messages and the template's tokens."""
    words = sum(len(message["content"].split()) for message in body["messages"])
    return TEMPLATE_TOKENS + words


@contextmanager
def chat_server(decide: Decide = always) -> Iterator[ChatServer]:
    """Yield a server on a loopback port, in a thread of its own."""
    state = ChatServer(decide=decide)
    loop = asyncio.new_event_loop()

    async def listen() -> asyncio.Server:
        return await asyncio.start_server(state.serve, "127.0.0.1", 0)

    server = loop.run_until_complete(listen())
    state.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def end() -> None:
        server.close()
        mine = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)

    try:
        yield state
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def _wanted(body: dict[str, Any]) -> int:
    return int(body.get("max_completion_tokens") or body["max_tokens"])


def _delta(delta: dict[str, Any], *, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": None}


def _event(writer: asyncio.StreamWriter, data: dict[str, Any]) -> None:
    event = f"data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
    writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")


def _whole(writer: asyncio.StreamWriter, status: int, data: Any, more: str = "") -> None:
    text = json.dumps(data).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(text)}\r\nconnection: close\r\n{more}\r\n"
    writer.write(head.encode() + text)
