from __future__ import annotations

import asyncio
import socket

import pytest
from starlette.types import Message

from ondol.core.errors import Cancelled
from ondol.server.http_process import listening_socket
from ondol.server.streaming import unless_disconnected


def test_a_connection_sends_at_once_what_it_is_given() -> None:
    """Headers and body are written apart: with Nagle's algorithm the body would wait 40 ms."""
    with listening_socket("127.0.0.1", 0) as listening:
        with socket.create_connection(listening.getsockname()):
            accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_work_ends_when_the_client_leaves() -> None:
    left, ended = asyncio.Event(), asyncio.Event()

    async def receive() -> Message:
        await left.wait()
        return {"type": "http.disconnect"}

    async def work() -> None:
        left.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(Cancelled):
        await unless_disconnected(receive, work())
    assert ended.is_set()
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_a_cancellation_from_outside_stays_one() -> None:
    async def receive() -> Message:
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def work() -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await unless_disconnected(receive, work())


async def test_work_that_never_waits_lets_others_run() -> None:
    """A client that asks again and again in one loop must not keep the loop to itself."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        turns += 1

    async def receive() -> Message:
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def work() -> int:
        return turns

    others = [asyncio.create_task(other()) for _ in range(3)]
    assert await unless_disconnected(receive, work()) == 3
    await asyncio.gather(*others)
