"""Keep-alive HTTP/1.1 clients that cost as little as Python allows: one protocol, no parsing of JSON.

The clients share the cores with the server they measure, so the same lean client is used for every
server: ready-made request bytes, and of the answer only status, length and a look for vectors.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


@dataclass(slots=True)
class Answers:
    """What the clients saw: seconds of each answer that counted, and how many were not vectors."""

    seconds: list[float] = field(default_factory=list)
    wrong: int = 0
    sample: bytes = b""

    def figures(self, window: float) -> dict[str, float]:
        """Return requests per second over ``window`` seconds, and quantiles in ms."""
        if not self.seconds:
            return {"per_second": 0.0, "p50_ms": 0.0, "p99_ms": 0.0, "wrong": self.wrong}
        p50, p99 = np.percentile(np.asarray(self.seconds) * 1e3, (50, 99))
        return {
            "per_second": round(len(self.seconds) / window, 2),
            "p50_ms": round(float(p50), 2),
            "p99_ms": round(float(p99), 2),
            "wrong": self.wrong,
        }


class _Client(asyncio.Protocol):
    """Sends the next request when the answer to the last one is whole."""

    def __init__(
        self, requests: Iterator[bytes], answers: Answers, *, begin: float, until: float
    ) -> None:
        self._requests = requests
        self._answers = answers
        self._begin = begin
        self._until = until
        self._buffer = bytearray()
        self._needed = 0
        self._sent = 0.0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._needed:
            head = self._buffer.find(_END)
            if head < 0:
                return
            low = bytes(self._buffer[:head]).lower()
            at = low.find(_LENGTH)
            if at < 0:
                self._end(ValueError(f"an answer without content-length: {low[:200]!r}"))
                return
            length = low[at + len(_LENGTH) :].split(b"\r\n", 1)[0]
            self._needed = head + len(_END) + int(length)
        if len(self._buffer) >= self._needed:
            self._answered(time.perf_counter())

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error or ConnectionError("the server closed the connection"))

    def _send(self) -> None:
        self._sent = time.perf_counter()
        if self._sent >= self._until:
            self._end(None)
        else:
            self._transport.write(next(self._requests))  # type: ignore[attr-defined]

    def _answered(self, now: float) -> None:
        if not self._buffer.startswith(b"HTTP/1.1 200") or b'"embedding"' not in self._buffer:
            self._answers.wrong += 1
        elif self._begin <= now <= self._until:
            self._answers.seconds.append(now - self._sent)
        self._answers.sample = self._answers.sample or bytes(self._buffer)
        self._buffer.clear()
        self._needed = 0
        self._send()

    def _end(self, error: Exception | None) -> None:
        if self.over.done():
            return
        if error is None:
            self.over.set_result(None)
        else:
            self.over.set_exception(error)
        self._transport.close()


async def drive(
    port: int, requests: Sequence[bytes], *, clients: int, seconds: float, warm: float = 1.0
) -> Answers:
    """Keep ``clients`` connections busy for ``warm`` + ``seconds``; only the latter counts.

    An answer counts when it ends in the window. Raises ``OSError`` when the server hangs up.
    """
    loop = asyncio.get_running_loop()
    answers = Answers()
    begin = time.perf_counter() + warm
    source = itertools.cycle(requests)
    made = [
        await loop.create_connection(
            lambda: _Client(source, answers, begin=begin, until=begin + seconds),
            "127.0.0.1",
            port,
        )
        for _ in range(clients)
    ]
    await asyncio.gather(*(client.over for _, client in made))
    return answers


def post(path: str, body: Mapping[str, Any]) -> bytes:
    """Return the bytes of a POST of ``body`` as JSON."""
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def get(path: str) -> bytes:
    """Return the bytes of a GET."""
    return f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()


async def first_answer(port: int, request: bytes) -> Any:
    """Send one request and return the JSON of its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        head = (await reader.readuntil(_END)).lower()
        length = int(head.partition(_LENGTH)[2].partition(b"\r\n")[0])
        return json.loads(await reader.readexactly(length))
    finally:
        writer.close()


async def answers_ok(port: int, path: str) -> bool:
    """Whether ``GET path`` answers 200 now."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        writer.write(get(path))
        return b" 200 " in await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()
