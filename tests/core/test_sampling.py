"""Looking again and again: one look at a time, off the loop, and the loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import threading

from ondol.core.clock import ManualClock
from ondol.core.sampling import Sampler
from ondol.core.timers import ManualTimers


async def until(condition: asyncio.Event) -> None:
    async with asyncio.timeout(10):
        await condition.wait()


async def test_a_slow_look_blocks_nothing_and_is_not_joined_by_another() -> None:
    timers, go, found = ManualTimers(ManualClock()), threading.Event(), asyncio.Event()
    seen: list[str] = []

    def read() -> str:
        go.wait(10)
        return threading.current_thread().name

    async def tell(name: str) -> None:
        seen.append(name)
        found.set()

    sampler = Sampler(read, tell, seconds=3, timers=timers, name="test")
    sampler.start()
    sampler.start()
    for _ in range(5):
        await asyncio.sleep(0)
        timers.advance(3)
    assert (seen, timers.pending) == ([], 0)
    go.set()
    await until(found)
    await asyncio.sleep(0)
    assert len(seen) == 1
    assert seen[0] != threading.main_thread().name
    assert timers.pending == 1
    found.clear()
    timers.advance(3)
    await until(found)
    assert len(seen) == 2
    await sampler.close()
    assert timers.pending == 0
    timers.advance(3)
    await asyncio.sleep(0)
    assert len(seen) == 2
