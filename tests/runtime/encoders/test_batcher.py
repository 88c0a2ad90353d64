from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest

from ondol.backends.fake_encoder import FakeEmbedder
from ondol.core.errors import BackendError, NotReady, OndolError, Overloaded, TextTooLong
from ondol.core.events import BatchRun, Event, Timing
from ondol.core.types import Encoded, FloatMatrix, Pair
from ondol.runtime.encoders.batcher import INLINE_CHARS, SLICE_CHARS, Batcher, BatcherLimits
from ondol.runtime.encoders.batching import Aging


class Gate(FakeEmbedder):
    """Runs only while open; tells when a batch has begun."""

    def __init__(self) -> None:
        super().__init__()
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


async def test_one_bad_input_is_found_by_halving() -> None:
    encoder = FakeEmbedder()
    async with running(encoder) as batcher:
        result = await batcher.submit([*(f"t{n}" for n in range(20)), "<<fail>>", "after"])
        assert [isinstance(value, BackendError) for value in result.values].count(True) == 1
        assert isinstance(result.values[20], BackendError)
    assert encoder.batches[:3] == [22, 11, 11]
    assert len(encoder.batches) <= 1 + 2 * 5


async def test_an_unforeseen_error_is_told_as_ours_and_the_worker_goes_on() -> None:
    class Broken(FakeEmbedder):
        def run(self, batch: Sequence[Encoded]) -> FloatMatrix:
            if len(batch) > 1:
                return np.zeros((1, 64), dtype=np.float32)
            raise ValueError("a bug")

    async with running(Broken()) as batcher:
        for _ in range(2):
            values = (await batcher.submit(["one", "two"])).values
            assert all(isinstance(v, BackendError) and "a bug" in v.message for v in values)


async def test_an_observer_that_raises_does_not_end_the_worker() -> None:
    class Deaf(Listener):
        def observe(self, event: Event) -> None:
            raise ValueError("cannot hear")

    async with running(FakeEmbedder(), observer=Deaf()) as batcher:
        for _ in range(2):
            assert isinstance((await batcher.submit(["text"])).values[0], np.ndarray)


class Slices(FakeEmbedder):
    """Notes what is tokenised together and on which thread; waits before a named slice."""

    def __init__(self) -> None:
        super().__init__()
        self.slices: list[int] = []
        self.threads: list[int] = []
        self.first_ran = threading.Event()
        self.ran_before_last_slice = False

    def tokenize(
        self, items: Sequence[str | Pair], *, truncate: bool
    ) -> list[Encoded | OndolError]:
        if len(self.slices) == 2:
            self.ran_before_last_slice = self.first_ran.wait(20)
        self.slices.append(len(items))
        self.threads.append(threading.get_ident())
        return super().tokenize(items, truncate=truncate)

    def run(self, batch: Sequence[Encoded]) -> FloatMatrix:
        self.first_ran.set()
        return super().run(batch)


async def test_the_first_slices_run_while_later_ones_are_tokenised() -> None:
    encoder = Slices()
    text = "word " * (SLICE_CHARS // 50)
    texts = [f"{text}{n}" for n in range(25)]
    async with running(encoder, BatcherLimits(token_budget=100_000)) as batcher:
        result = await batcher.submit(texts, truncate=True)
        assert encoder.slices == [11, 11, 3]
        assert encoder.ran_before_last_slice
        for at in (0, 12, 24):
            (alone,) = (await batcher.submit([texts[at]], truncate=True)).values
            assert isinstance(alone, np.ndarray)
            np.testing.assert_allclose(result.values[at], alone)  # type: ignore[arg-type]
        assert all(result.tokens)


async def test_a_short_text_is_tokenised_without_a_hop_to_a_thread() -> None:
    encoder = Slices()
    async with running(encoder) as batcher:
        await batcher.submit(["short"])
        await batcher.submit(["long " * INLINE_CHARS], truncate=True)
    assert encoder.threads[0] == threading.get_ident() != encoder.threads[1]


async def test_errors_in_a_later_slice_stay_in_their_place() -> None:
    long = "word " * (SLICE_CHARS // 10)
    async with running(FakeEmbedder(max_tokens=100)) as batcher:
        result = await batcher.submit(["fine", long, long, long, "fine too", "last"])
    kinds = [isinstance(value, TextTooLong) for value in result.values]
    assert kinds == [False, True, True, True, False, False]


async def test_a_text_that_fails_last_still_ends_the_request() -> None:
    async with running(FakeEmbedder(max_tokens=10)) as batcher:
        result = await batcher.submit(["x" * SLICE_CHARS, "too long " * 20])
        assert isinstance(result.values[0], np.ndarray)
        assert isinstance(result.values[1], TextTooLong)
        assert batcher.depth == 0


async def test_items_that_are_still_being_tokenised_count_against_the_queue() -> None:
    encoder = Slices()
    encoder.slices = [0, 0]  # the next slice waits until something has run
    limits = BatcherLimits(queue_items=10)
    async with running(encoder, limits) as batcher:
        first = asyncio.create_task(batcher.submit(["long " * INLINE_CHARS] * 8, truncate=True))
        while batcher.depth < 1:
            await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="8 items wait"):
            await batcher.submit(["a", "b", "c"])
        encoder.first_ran.set()
        await first


async def test_a_whole_batch_is_delivered_in_one_turn_of_the_loop() -> None:
    encoder = Gate()
    async with running(encoder) as batcher:
        first = asyncio.create_task(batcher.submit(["first"]))
        await until(encoder.begun)
        others = [asyncio.create_task(batcher.submit([f"text {n}"])) for n in range(10)]
        while batcher.waiting < 10:
            await asyncio.sleep(0)
        assert batcher.running == 1
        encoder.open.set()
        done, _ = await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 10
        await first
        assert batcher.running == 0


async def test_bulk_work_that_aged_runs_between_urgent_batches() -> None:
    encoder = Gate()
    done: list[str] = []

    async def submit(batcher: Batcher, name: str, *, urgent: bool) -> None:
        await batcher.submit([name], urgent=urgent)
        done.append(name)

    limits = BatcherLimits(max_batch=1, aging=Aging(seconds=0.0, every=3))
    async with running(encoder, limits) as batcher:
        tasks = [asyncio.create_task(submit(batcher, "running", urgent=True))]
        await until(encoder.begun)
        tasks.append(asyncio.create_task(submit(batcher, "bulk", urgent=False)))
        for n in range(4):
            tasks.append(asyncio.create_task(submit(batcher, f"urgent {n}", urgent=True)))
        while batcher.waiting < 5:
            await asyncio.sleep(0)
        encoder.open.set()
        await asyncio.gather(*tasks)
    assert done == ["running", "urgent 0", "urgent 1", "bulk", "urgent 2", "urgent 3"]
