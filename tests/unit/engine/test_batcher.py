from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest

from ondol.backends.fake_encoder import FakeEmbedder
from ondol.core.errors import BackendError, NotReady, Overloaded, TextTooLong
from ondol.core.observe import BatchRun, Event, Timing
from ondol.core.types import Encoded, FloatMatrix
from ondol.engine.batcher import Batcher, BatcherLimits


class Gate(FakeEmbedder):
    """Runs only while open; tells when a batch has begun."""

    def __init__(self, **options: int) -> None:
        super().__init__(**options)
        self.open = threading.Event()
        self.begun = threading.Event()

    def run(self, batch: Sequence[Encoded]) -> FloatMatrix:
        self.begun.set()
        self.open.wait(20)
        return super().run(batch)


class Listener:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def observe(self, event: Event) -> None:
        self.events.append(event)


@asynccontextmanager
async def running(
    encoder: FakeEmbedder, limits: BatcherLimits | None = None, observer: Listener | None = None
) -> AsyncIterator[Batcher]:
    batcher = Batcher(encoder, limits=limits or BatcherLimits(), observer=observer)
    try:
        yield batcher
    finally:
        if isinstance(encoder, Gate):
            encoder.open.set()
        await batcher.close()


async def until(condition: threading.Event) -> None:
    assert await asyncio.to_thread(condition.wait, 20)


async def test_results_come_in_input_order_whatever_the_lengths() -> None:
    texts = ["가 나 다 " * n + str(n) for n in (9, 1, 30, 4, 2, 60, 3)]
    async with running(FakeEmbedder(), BatcherLimits(token_budget=64)) as batcher:
        together = await batcher.submit(texts)
        for text, value in zip(texts, together.values, strict=True):
            (alone,) = (await batcher.submit([text])).values
            assert isinstance(value, np.ndarray)
            assert isinstance(alone, np.ndarray)
            np.testing.assert_allclose(value, alone)


async def test_one_bad_input_fails_alone_and_the_worker_goes_on() -> None:
    async with running(FakeEmbedder(max_tokens=8)) as batcher:
        result = await batcher.submit(["fine", "<<fail>>", "also fine", "too long " * 20])
        kinds = [type(value) for value in result.values]
        assert kinds == [np.ndarray, BackendError, np.ndarray, TextTooLong]
        assert isinstance((await batcher.submit(["after"])).values[0], np.ndarray)


async def test_concurrent_callers_share_batches() -> None:
    encoder = Gate()
    async with running(encoder) as batcher:
        first = asyncio.create_task(batcher.submit(["first"]))
        await until(encoder.begun)
        others = [asyncio.create_task(batcher.submit([f"text {n}"])) for n in range(10)]
        while batcher.waiting < 10:
            await asyncio.sleep(0)
        encoder.open.set()
        await asyncio.gather(first, *others)
        assert encoder.batches == [1, 10]


async def test_urgent_work_overtakes_the_batch_lane() -> None:
    encoder = Gate()
    done: list[str] = []

    async def submit(batcher: Batcher, name: str, *, urgent: bool) -> None:
        await batcher.submit([name], urgent=urgent)
        done.append(name)

    async with running(encoder, BatcherLimits(max_batch=1)) as batcher:
        tasks = [asyncio.create_task(submit(batcher, "running", urgent=False))]
        await until(encoder.begun)
        tasks.append(asyncio.create_task(submit(batcher, "bulk", urgent=False)))
        while batcher.waiting < 1:
            await asyncio.sleep(0)
        tasks.append(asyncio.create_task(submit(batcher, "query", urgent=True)))
        while batcher.waiting < 2:
            await asyncio.sleep(0)
        encoder.open.set()
        await asyncio.gather(*tasks)
    assert done == ["running", "query", "bulk"]


async def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    encoder = Gate()
    async with running(encoder, BatcherLimits(queue_requests=2)) as batcher:
        admitted = [asyncio.create_task(batcher.submit([f"t{n}"])) for n in range(2)]
        await until(encoder.begun)
        with pytest.raises(Overloaded) as refused:
            await batcher.submit(["one too many"])
        assert refused.value.retry_after >= 1
        encoder.open.set()
        await asyncio.gather(*admitted)
        assert batcher.depth == 0


async def test_a_cancelled_request_never_runs() -> None:
    encoder = Gate()
    async with running(encoder, BatcherLimits(max_batch=1)) as batcher:
        first = asyncio.create_task(batcher.submit(["first"]))
        await until(encoder.begun)
        gone = asyncio.create_task(batcher.submit(["gone"] * 3))
        while batcher.waiting < 3:
            await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        encoder.open.set()
        await first
        await batcher.submit(["last"])
        assert len(encoder.batches) == 2
        assert batcher.depth == 0


async def test_the_queue_wait_has_a_limit_with_a_name() -> None:
    encoder = Gate()
    limits = BatcherLimits(max_batch=1, queue_seconds=0.02)
    async with running(encoder, limits) as batcher:
        first = asyncio.create_task(batcher.submit(["first"]))
        await until(encoder.begun)
        with pytest.raises(Overloaded, match="queue"):
            await batcher.submit(["waits"])
        encoder.open.set()
        await first


async def test_closing_fails_what_waits_and_refuses_what_comes() -> None:
    encoder = Gate()
    batcher = Batcher(encoder, limits=BatcherLimits(max_batch=1))
    first = asyncio.create_task(batcher.submit(["first"]))
    await until(encoder.begun)
    waiting = asyncio.create_task(batcher.submit(["waiting"]))
    while batcher.waiting < 1:
        await asyncio.sleep(0)
    closing = asyncio.create_task(batcher.close())
    result = await waiting
    assert isinstance(result.values[0], NotReady)
    encoder.open.set()
    assert isinstance((await first).values[0], np.ndarray)
    await closing
    with pytest.raises(NotReady):
        await batcher.submit(["late"])


async def test_timing_and_batches_are_observed() -> None:
    listener = Listener()
    timing = Timing()
    async with running(FakeEmbedder(), observer=listener) as batcher:
        await batcher.submit(["one two", "three"], timing=timing)
    assert timing.inference_ms > 0
    (event,) = listener.events
    assert isinstance(event, BatchRun)
    assert event.items == 2
    assert event.padded_tokens >= event.tokens
