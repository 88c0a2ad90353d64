"""Feeds an encoder through the engine's own ``Batcher``, as bulk work does: the queue never runs dry.

Owns no encoder: a batcher is made for a run and its end leaves the encoder loaded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from ondol.backends.protocols import EncoderBackend, EncoderSpec, MemoryAware
from ondol.core.errors import OndolError
from ondol.core.events import BatchRun, Event
from ondol.core.types import Encoded, FloatMatrix, Pair
from ondol.runtime.encoders.batcher import Batcher, BatcherLimits

Item = str | Pair | Encoded

SLICE = 512
"""Texts of one bulk request; two are under way at once."""


class Counts:
    """Hears of batches; what they held, and what failed."""

    def __init__(self) -> None:
        self.batches = self.padded = self.tokens = self.failed = 0

    def observe(self, event: Event) -> None:
        if isinstance(event, BatchRun):
            self.batches += 1
            self.padded += event.padded_tokens


class _Kept:
    """An encoder that outlives its batcher: closing it is the probe's own affair."""

    def __init__(self, encoder: EncoderBackend) -> None:
        self._encoder = encoder

    @property
    def spec(self) -> EncoderSpec:
        return self._encoder.spec

    def tokenize(
        self, items: Sequence[str | Pair], *, truncate: bool
    ) -> list[Encoded | OndolError]:
        return self._encoder.tokenize(items, truncate=truncate)

    def run(self, batch: Sequence[Encoded]) -> FloatMatrix:
        return self._encoder.run(batch)

    def close(self) -> None:
        return None


class _KeptOnDevice(_Kept):
    """The same for an encoder in memory of its own, which the batcher asks about."""

    def __init__(self, encoder: EncoderBackend, memory: MemoryAware) -> None:
        super().__init__(encoder)
        self._memory = memory

    def free_bytes(self) -> int | None:
        return self._memory.free_bytes()


@asynccontextmanager
async def batching(
    encoder: EncoderBackend, limits: BatcherLimits, counts: Counts
) -> AsyncIterator[Batcher]:
    kept = _Kept(encoder)
    if isinstance(encoder, MemoryAware):
        kept = _KeptOnDevice(encoder, encoder)
    batcher = Batcher(kept, limits=limits, observer=counts)
    try:
        yield batcher
    finally:
        await batcher.close()


def limits_of(token_budget: int, max_batch: int) -> BatcherLimits:
    return BatcherLimits(token_budget=token_budget, max_batch=max_batch, queue_seconds=3600.0)


async def feed(
    encoder: EncoderBackend,
    items: Sequence[Item],
    counts: Counts,
    policy: str,
    limits: BatcherLimits,
) -> None:
    """Keep the batcher fed. In order of arrival one batch is asked for at a time, ready-made."""
    arrival = policy == "arrival"
    requests = _in_order(encoder, items, limits) if arrival else _slices(items)
    async with batching(encoder, limits, counts) as batcher:
        under_way: set[asyncio.Task[None]] = set()
        for request in requests:
            if len(under_way) >= (1 if arrival else 2):
                done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            under_way.add(asyncio.create_task(_submit(batcher, request, counts)))
        await asyncio.gather(*under_way)


async def _submit(batcher: Batcher, items: Sequence[Item], counts: Counts) -> None:
    result = await batcher.submit(items, truncate=True, urgent=False)
    counts.tokens += sum(result.tokens)
    counts.failed += sum(isinstance(value, OndolError) for value in result.values)


def _slices(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    return (items[at : at + SLICE] for at in range(0, len(items), SLICE))


def _in_order(
    encoder: EncoderBackend, items: Sequence[Item], limits: BatcherLimits
) -> Iterator[Sequence[Item]]:
    """Yield batches within ``limits`` in order of arrival."""
    batch: list[Encoded] = []
    longest = 0
    for part in _slices(items):
        for item in tokenized(encoder, part):
            grown = max(longest, item.tokens) * (len(batch) + 1)
            if batch and (grown > limits.token_budget or len(batch) >= limits.max_batch):
                yield batch
                batch, longest = [], 0
            batch.append(item)
            longest = max(longest, item.tokens)
    if batch:
        yield batch


def tokenized(encoder: EncoderBackend, items: Sequence[Item]) -> list[Encoded]:
    """Return ``items`` tokenised and cut; raises the first item's error."""
    ready = [item for item in items if isinstance(item, Encoded)]
    if len(ready) == len(items):
        return ready
    raw = [item for item in items if not isinstance(item, Encoded)]
    found = encoder.tokenize(raw, truncate=True)
    raise_first(found)
    return [item for item in found if isinstance(item, Encoded)]


def raise_first(values: Sequence[Any]) -> None:
    for value in values:
        if isinstance(value, OndolError):
            raise value
