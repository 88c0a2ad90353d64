from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest

from ondol.backends.fake_encoder import FakeEmbedder
from ondol.core.clock import ManualClock
from ondol.core.errors import BackendError, OutOfMemory
from ondol.core.events import BatchBudgetChanged, Event
from ondol.core.types import Encoded, FloatMatrix
from ondol.runtime.encoders.batcher import Batcher, BatcherLimits
from ondol.runtime.encoders.batching import LOOK_SECONDS, RECOVERY_SECONDS
from ondol.telemetry.metrics import Metrics

MB = 1024 * 1024


class Cramped(FakeEmbedder):
    """Runs out of memory on more than ``room`` items at once, as the backend would tell it."""

    def __init__(self, room: int, *, error: type[Exception] = OutOfMemory) -> None:
        super().__init__()
        self.room = room
        self._error = error

    def run(self, batch: Sequence[Encoded]) -> FloatMatrix:
        if len(batch) > self.room:
            self.batches.append(len(batch))
            raise self._error("no room")
        return super().run(batch)


class OnDevice(FakeEmbedder):
    """An encoder with memory of its own."""

    def __init__(self, free_mb: int) -> None:
        super().__init__()
        self.free_mb = free_mb

    def free_bytes(self) -> int | None:
        return self.free_mb * MB


class Listener:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def observe(self, event: Event) -> None:
        self.events.append(event)

    @property
    def budgets(self) -> list[tuple[int, str]]:
        return [(e.tokens, e.reason) for e in self.events if isinstance(e, BatchBudgetChanged)]


@asynccontextmanager
async def running(
    encoder: FakeEmbedder,
    *,
    clock: ManualClock | None = None,
    observer: Listener | None = None,
    free_mb: int | None = None,
) -> AsyncIterator[Batcher]:
    batcher = Batcher(
        encoder,
        limits=BatcherLimits(token_budget=1024),
        clock=clock or ManualClock(),
        observer=observer,
        free_bytes=None if free_mb is None else lambda: free_mb * MB,
    )
    try:
        yield batcher
    finally:
        await batcher.close()


@pytest.mark.parametrize("error", [OutOfMemory, MemoryError])
async def test_a_batch_without_memory_is_halved_and_tried_once_more(error: type[Exception]) -> None:
    encoder = Cramped(4, error=error)
    async with running(encoder, free_mb=9000) as batcher:
        values = (await batcher.submit([f"t{n}" for n in range(8)])).values
    assert all(isinstance(value, np.ndarray) for value in values)
    assert encoder.batches == [8, 4, 4]


async def test_what_finds_no_memory_twice_fails_for_its_items_only() -> None:
    class Uneven(Cramped):
        def run(self, batch: Sequence[Encoded]) -> FloatMatrix:
            first = batch[0].ids[1] == self.marked
            self.room = 0 if first and len(batch) > 1 else 3
            return super().run(batch)

        marked = -1

    encoder = Uneven(3)
    (marked,) = encoder.tokenize(["zz"], truncate=False)
    assert isinstance(marked, Encoded)
    encoder.marked = marked.ids[1]
    async with running(encoder, free_mb=9000) as batcher:
        values = (await batcher.submit(["zz", "b", "c", "d", "e", "f"])).values
        assert [isinstance(value, OutOfMemory) for value in values] == [True] * 3 + [False] * 3
        assert len({id(value) for value in values}) == 6
        assert isinstance((await batcher.submit(["after"])).values[0], np.ndarray)


async def test_one_item_without_memory_is_tried_twice_and_then_told() -> None:
    encoder = Cramped(0)
    async with running(encoder, free_mb=9000) as batcher:
        (value,) = (await batcher.submit(["text"])).values
    assert isinstance(value, BackendError)
    assert isinstance(value, OutOfMemory)
    assert encoder.batches == [1, 1]


async def test_after_running_out_batches_are_smaller_until_it_recovers() -> None:
    clock, listener = ManualClock(), Listener()
    encoder = Cramped(4)
    async with running(encoder, clock=clock, observer=listener, free_mb=9000) as batcher:
        await batcher.submit([f"t{n}" for n in range(8)])
        encoder.room = 99
        await batcher.submit(["next"])
        assert batcher.token_budget == 512
        clock.advance(RECOVERY_SECONDS)
        await batcher.submit(["later"])
        assert batcher.token_budget == 1024
    assert listener.budgets == [(512, "out_of_memory"), (1024, "whole")]


async def test_batches_adapt_to_the_machine_s_free_memory() -> None:
    listener, encoder = Listener(), FakeEmbedder()
    async with running(encoder, observer=listener, free_mb=700) as batcher:
        texts = ["one two three four"] * 64
        await batcher.submit(texts)
        assert batcher.token_budget == 256
        (item,) = encoder.tokenize(texts[:1], truncate=False)
        assert isinstance(item, Encoded)
        assert max(encoder.batches) == 256 // item.tokens
    assert listener.budgets == [(256, "little_memory")]


async def test_an_encoder_with_memory_of_its_own_is_asked_instead() -> None:
    clock, encoder = ManualClock(), OnDevice(1500)
    async with running(encoder, clock=clock) as batcher:
        await batcher.submit(["text"])
        assert batcher.token_budget == 512
        encoder.free_mb = 80_000
        clock.advance(LOOK_SECONDS)
        await batcher.submit(["text"])
        assert batcher.token_budget == 1024


def test_the_metrics_show_the_share_and_the_reason() -> None:
    metrics = Metrics()
    metrics.observe(BatchBudgetChanged("m", tokens=256, full_tokens=1024, reason="little_memory"))
    text = metrics.render().decode()
    assert 'ondol_batch_budget_ratio{model="m"} 0.25' in text
    assert 'ondol_batch_budget_changes_total{model="m",reason="little_memory"} 1.0' in text
