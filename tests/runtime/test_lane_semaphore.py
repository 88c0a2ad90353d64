"""The places of a lane that no generator serves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ondol.core.clock import ManualClock
from ondol.core.errors import Overloaded
from ondol.core.events import Timing
from ondol.core.settings.lane_sections import LaneSettings
from ondol.runtime.lane_semaphore import LaneSemaphore


def permit_of(**settings: Any) -> LaneSemaphore:
    return LaneSemaphore("search", LaneSettings(**settings), clock=ManualClock())


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def held(permit: LaneSemaphore, leave: asyncio.Event, order: list[int], number: int) -> None:
    async with permit.hold():
        order.append(number)
        await leave.wait()


async def test_so_many_run_so_many_wait_and_the_next_is_refused() -> None:
    permit = permit_of(running=2, queue=2)
    leave, order = asyncio.Event(), list[int]()
    tasks = [asyncio.create_task(held(permit, leave, order, n)) for n in range(4)]
    await settled()
    assert order == [0, 1]
    now = permit.snapshot()
    assert (now.running, now.depth) == (2, 2)

    with pytest.raises(Overloaded) as refused:
        async with permit.hold():
            pass

    assert refused.value.code == "overloaded"
    assert refused.value.retry_after >= 1
    leave.set()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3]
    now = permit.snapshot()
    assert (now.running, now.depth, now.rejected) == (0, 0, {"overloaded": 1})


async def test_one_that_leaves_the_queue_makes_room_and_never_runs() -> None:
    permit = permit_of(running=1, queue=1)
    leave, order = asyncio.Event(), list[int]()
    first = asyncio.create_task(held(permit, leave, order, 0))
    await settled()
    second = asyncio.create_task(held(permit, leave, order, 1))
    await settled()
    second.cancel()
    await settled()
    assert permit.snapshot().depth == 0
    third = asyncio.create_task(held(permit, leave, order, 2))
    await settled()
    leave.set()
    await asyncio.gather(first, third)
    assert order == [0, 2]


async def test_one_that_leaves_as_its_turn_comes_hands_the_place_on() -> None:
    permit = permit_of(running=1, queue=3)
    leave, order = asyncio.Event(), list[int]()
    first = asyncio.create_task(held(permit, leave, order, 0))
    await settled()
    second = asyncio.create_task(held(permit, leave, order, 1))
    third = asyncio.create_task(held(permit, leave, order, 2))
    await settled()
    leave.set()
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(first, third)
    assert 2 in order
    assert permit.snapshot().running == 0


async def test_the_wait_is_bounded_and_timed() -> None:
    permit = permit_of(running=1, queue=1, queue_seconds=0.01)
    leave, order = asyncio.Event(), list[int]()
    first = asyncio.create_task(held(permit, leave, order, 0))
    await settled()
    with pytest.raises(Overloaded) as late:
        async with permit.hold(Timing()):
            pass
    assert late.value.code == "queue_deadline_exceeded"
    leave.set()
    await first
    assert permit.snapshot().running == 0


async def test_an_error_inside_gives_the_place_back() -> None:
    permit = permit_of(running=1, queue=1)
    with pytest.raises(ZeroDivisionError):
        async with permit.hold():
            raise ZeroDivisionError
    async with permit.hold():
        assert permit.snapshot().running == 1
