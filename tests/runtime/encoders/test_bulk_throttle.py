from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.backends.fake_encoder import FakeEmbedder
from ondol.core.clock import ManualClock
from ondol.core.types import Encoded, FloatMatrix
from ondol.runtime.encoders.batcher import Batcher, BatcherLimits
from ondol.runtime.encoders.batching import Budget
from ondol.runtime.encoders.bulk_throttle import BulkThrottle, ThrottleLimits

WHOLE = Budget(tokens=2048, items=64)


class Paced(FakeEmbedder):
    """Computes 1,000 tokens a second, padding included."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock

    def run(self, batch: Sequence[Encoded]) -> FloatMatrix:
        longest = max(item.tokens for item in batch)
        self._clock.advance(len(batch) * longest / 1000)
        return super().run(batch)


async def batches_of_bulk(asked_before: float | None) -> list[int]:
    """Run 64 bulk texts of about 10 tokens; a question came ``asked_before`` seconds earlier."""
    clock = ManualClock()
    encoder = Paced(clock)
    limits = BatcherLimits(patience=ThrottleLimits(slice_seconds=0.05, seconds=5))
    batcher = Batcher(encoder, limits=limits, clock=clock)
    try:
        texts = [f"one two three four five six seven {n}" for n in range(64)]
        await batcher.submit(texts[:1], urgent=False)
        if asked_before is not None:
            await batcher.submit(texts[:1], urgent=True)
            clock.advance(asked_before)
        begun = len(encoder.batches)
        await batcher.submit(texts, urgent=False)
        return encoder.batches[begun:]
    finally:
        await batcher.close()


async def test_bulk_work_runs_in_short_batches_while_somebody_asks() -> None:
    batches = await batches_of_bulk(0.0)
    assert sum(batches) == 64
    assert max(batches) <= 6


@pytest.mark.parametrize("asked_before", [None, 30.0])
async def test_bulk_work_runs_in_whole_batches_when_nobody_asks(asked_before: float | None) -> None:
    assert await batches_of_bulk(asked_before) == [64]


@given(
    st.lists(st.tuples(st.integers(-5, 5000), st.floats(-1, 10)), max_size=20),
    st.floats(0, 100),
    st.integers(1, 5000),
)
def test_a_slice_is_never_empty_nor_more_than_the_budget(
    ran: list[tuple[int, float]], now: float, tokens: int
) -> None:
    courtesy = BulkThrottle(ThrottleLimits())
    courtesy.urgent_came(50.0)
    for cost, seconds in ran:
        courtesy.ran(cost, seconds)
    bulk = courtesy.bulk(Budget(tokens=tokens, items=8), now=now)
    assert 1 <= bulk.tokens <= tokens
    assert bulk.items == 8


def test_a_slice_follows_the_speed_of_the_encoder() -> None:
    courtesy = BulkThrottle(ThrottleLimits(slice_seconds=0.01))
    courtesy.urgent_came(0.0)
    assert courtesy.bulk(WHOLE, now=0.1) == WHOLE  # nothing is known of it yet
    for _ in range(40):
        courtesy.ran(1000, 0.05)
    assert courtesy.bulk(WHOLE, now=0.1).tokens == pytest.approx(200, abs=1)
    for _ in range(40):
        courtesy.ran(1000, 0.5)
    assert courtesy.bulk(WHOLE, now=0.1).tokens == pytest.approx(20, abs=1)


def test_the_encoder_rests_for_the_next_question_but_not_for_ever() -> None:
    courtesy = BulkThrottle(ThrottleLimits(rest_seconds=0.02, rests=2, asking_seconds=1.0))
    assert courtesy.rest(now=0.0, streak=0) == 0.0  # nobody has asked
    courtesy.urgent_came(10.0)
    assert courtesy.rest(now=10.5, streak=0) == 0.02
    assert courtesy.rest(now=10.5, streak=1) == 0.02
    assert courtesy.rest(now=10.5, streak=2) == 0.0  # bulk work has waited long enough
    assert courtesy.rest(now=11.5, streak=0) == 0.0  # nobody asks any more


async def test_a_question_that_comes_while_the_encoder_rests_runs_before_bulk_work() -> None:
    limits = BatcherLimits(max_batch=1, patience=ThrottleLimits(rest_seconds=20.0, rests=2))
    batcher = Batcher(FakeEmbedder(), limits=limits, clock=ManualClock())
    done: list[str] = []

    async def submit(name: str, *, urgent: bool) -> None:
        await batcher.submit([name], urgent=urgent)
        done.append(name)

    try:
        await submit("question 1", urgent=True)
        bulk = asyncio.create_task(submit("bulk", urgent=False))
        while batcher.waiting < 1:
            await asyncio.sleep(0)
        await submit("question 2", urgent=True)
        await submit("question 3", urgent=True)
        await bulk
    finally:
        await batcher.close()
    assert done == ["question 1", "question 2", "question 3", "bulk"]
