"""A client that leaves frees what it held: seen through ``/v1/lanes`` and the generator itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.api.conftest import Served
from tests.api.stage import make_app, running

from ondol.backends.fake_generator import FakeGenerator
from ondol.server.streaming import PING, EventStream, SseRelay

BODY = {"model": "auto", "messages": [{"role": "user", "content": "one two three"}]}


def running_now(http: httpx.Client) -> int:
    running: int = http.get("/v1/lanes").json()["lanes"]["chat"]["running"]
    return running


def leave_in_the_middle(served: Served, *, stream: bool) -> None:
    """Ask, wait until the generator is at work, and give up."""
    with (
        httpx.Client(base_url=served.url, timeout=0.2) as leaving,
        leaving.stream("POST", "/v1/chat/completions", json={**BODY, "stream": stream}) as response,
    ):
        assert running_now(served.http) == 1
        response.read()


@pytest.mark.parametrize("stream", [True, False])
def test_leaving_a_chat_frees_its_slot(served: Served, stream: bool) -> None:
    served.gate.clear()
    with pytest.raises(httpx.ReadTimeout):
        leave_in_the_middle(served, stream=stream)
    assert served.generator.wait_active(0)
    served.gate.set()
    assert served.http.post("/v1/chat/completions", json=BODY).status_code == 200
    while running_now(served.http):
        pass


async def test_leaving_in_prefill_frees_the_slot(tmp_path: Path) -> None:
    gate = threading.Event()
    generator = FakeGenerator(prefill_gate=gate, slots=1)
    async with running(make_app(tmp_path, generator=generator)) as client:
        asking = asyncio.create_task(client.post("/v1/chat/completions", json=BODY))
        assert await asyncio.to_thread(generator.wait_active, 1)
        asking.cancel()
        assert await asyncio.to_thread(generator.wait_active, 0)
        gate.set()
        assert (await client.post("/v1/chat/completions", json=BODY)).status_code == 200


async def test_a_full_queue_is_a_429_with_retry_after(tmp_path: Path) -> None:
    gate = threading.Event()
    generator = FakeGenerator(prefill_gate=gate, slots=1)
    app = make_app(tmp_path, generator=generator, lanes={"chat": {"queue": 1}})
    async with running(app) as client:
        first = asyncio.create_task(client.post("/v1/chat/completions", json=BODY))
        assert await asyncio.to_thread(generator.wait_active, 1)
        second = asyncio.create_task(client.post("/v1/chat/completions", json=BODY))
        while (await client.get("/v1/lanes")).json()["lanes"]["chat"]["depth"] < 1:
            await asyncio.sleep(0)
        for stream in (True, False):
            third = await client.post("/v1/chat/completions", json={**BODY, "stream": stream})
            assert third.status_code == 429
            assert third.json()["error"]["type"] == "rate_limit_error"
            assert third.headers["retry-after"].isdigit()
        gate.set()
        assert [(await first).status_code, (await second).status_code] == [200, 200]


class Source:
    """An endless stream that says when it was closed."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.more = asyncio.Event()

    async def items(self) -> AsyncGenerator[str]:
        try:
            yield "first"
            await self.more.wait()
            yield "second"
        finally:
            self.closed.set()


async def respond(
    source: Source, leave: asyncio.Event, *, ping_seconds: float = 60
) -> asyncio.Queue[dict[str, Any]]:
    """Run an event stream over the source; the client leaves when told."""
    sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    relay = await SseRelay.started(source.items())
    response = EventStream(
        relay,
        render=lambda item: item.encode(),
        failed=lambda error: b"failed",
        opening=b"opening",
        last=b"last",
        ping_seconds=ping_seconds,
    )

    async def receive() -> dict[str, Any]:
        await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.put_nowait(message)

    async with asyncio.timeout(10):
        await response({"type": "http"}, receive, send)
    return sent


def bodies(sent: asyncio.Queue[dict[str, Any]]) -> list[bytes]:
    messages = [sent.get_nowait() for _ in range(sent.qsize())]
    return [message["body"] for message in messages if "body" in message]


async def test_a_stream_closes_its_source_when_the_client_leaves() -> None:
    source, leave = Source(), asyncio.Event()
    running_response = asyncio.create_task(respond(source, leave))
    leave.set()
    sent = await running_response
    assert source.closed.is_set()
    assert b"last" not in bodies(sent)


async def test_a_stream_that_ends_says_so_and_pings_while_it_waits() -> None:
    source, leave = Source(), asyncio.Event()
    running_response = asyncio.create_task(respond(source, leave, ping_seconds=0.001))
    await asyncio.sleep(0.05)
    source.more.set()
    seen = bodies(await running_response)
    assert seen[:2] == [b"opening", b"first"]
    assert PING in seen
    assert seen[-3:] == [b"second", b"last", b""]


async def test_an_error_before_the_first_item_is_raised_not_streamed() -> None:
    async def broken() -> AsyncGenerator[str]:
        raise ValueError("early")
        yield ""

    with pytest.raises(ValueError, match="early"):
        await SseRelay.started(broken())


async def test_a_slow_reader_holds_the_source_back() -> None:
    made = 0

    async def eager() -> AsyncGenerator[int]:
        nonlocal made
        while True:
            made += 1
            yield made

    relay = await SseRelay.started(eager())
    for _ in range(1000):
        await asyncio.sleep(0)
    assert made < 100
    await relay.close()
