"""Keeps one encoder busy: admission, a bounded queue, batches, one worker thread.

Owns the encoder it is given; nobody else calls ``run``. Every item gets a value or an error: a
batch that fails is run again item by item, so that one bad input fails alone. Knows no HTTP and
no roles; an item is a text or a pair, its cost is its tokens.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ondol.backends.base import Encoder
from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import (
    BackendError,
    NotReady,
    OndolError,
    Overloaded,
)
from ondol.core.observe import BatchRun, NullObserver, Observer, Timing
from ondol.core.types import Encoded, FloatMatrix, Pair
from ondol.engine.batching import Budget, next_batch

_log = logging.getLogger("ondol.batcher")

BULK_PATIENCE = 60

Value = NDArray[np.float32] | OndolError


@dataclass(frozen=True, slots=True)
class BatcherLimits:
    """Bounds of one batcher: batch shape, waiting requests and items, and the longest wait."""

    token_budget: int = 2048
    max_batch: int = 64
    queue_requests: int = 512
    queue_items: int = 32_768
    queue_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class BatchResult:
    """One value (float32 row or error) and one token count per item, in the order they came."""

    values: list[Value]
    tokens: list[int]


@dataclass(slots=True)
class _Request:
    values: list[Value | None]
    remaining: int
    enqueued: float
    future: asyncio.Future[None]
    loop: asyncio.AbstractEventLoop
    started: float = 0.0
    finished: float = 0.0
    cancelled: bool = False


@dataclass(slots=True)
class _Item:
    request: _Request
    index: int
    encoded: Encoded
    urgent: bool
    tokens: int = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = self.encoded.tokens


class Batcher:
    """Runs an encoder for many callers at once."""

    def __init__(
        self,
        encoder: Encoder,
        *,
        limits: BatcherLimits,
        clock: Clock | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._encoder = encoder
        self._limits = limits
        self._budget = Budget(tokens=limits.token_budget, items=limits.max_batch)
        self._clock = clock or SystemClock()
        self._observer = observer or NullObserver()
        self._queue: list[_Item] = []
        self._requests = 0
        self._changed = threading.Condition()
        self._closing = False
        self._draining = False
        self._idle = asyncio.Event()
        self._seconds_per_item = 0.01
        self._thread = threading.Thread(
            target=self._work, name=f"ondol-{encoder.spec.model}", daemon=True
        )
        self._thread.start()

    @property
    def encoder(self) -> Encoder:
        return self._encoder

    @property
    def depth(self) -> int:
        """Requests admitted and not yet answered."""
        return self._requests

    @property
    def waiting(self) -> int:
        """Items that have not started."""
        return len(self._queue)

    @property
    def capacity(self) -> int:
        return self._limits.queue_requests

    async def submit(
        self,
        items: Sequence[str | Pair | Encoded],
        *,
        truncate: bool = False,
        urgent: bool = True,
        timing: Timing | None = None,
    ) -> BatchResult:
        """Tokenise and run ``items``; cancelling the caller drops what has not started.

        Items of one call are all raw, or all ``Encoded`` by the caller already.

        Raises ``Overloaded`` when the queue is full or its wait runs out and ``NotReady`` when
        closing. Errors of single items are values.
        """
        self._admit(len(items), urgent=urgent)
        try:
            before = self._clock.monotonic()
            encoded = await self._tokenized(items, truncate=truncate)
            tokenized = self._clock.monotonic()
            request = self._enqueue(encoded, urgent=urgent)
            try:
                if request.remaining:
                    await self._wait(request, urgent=urgent)
            finally:
                request.cancelled = True
            if timing is not None:
                timing.tokenize_ms += (tokenized - before) * 1e3
                if request.finished:
                    timing.queue_ms += (request.started - request.enqueued) * 1e3
                    timing.inference_ms += (request.finished - request.started) * 1e3
        finally:
            self._requests -= 1
            if not self._requests:
                self._idle.set()
        values = [
            BackendError("the model returned nothing for this item") if v is None else v
            for v in request.values
        ]
        tokens = [e.tokens if isinstance(e, Encoded) else 0 for e in encoded]
        return BatchResult(values=values, tokens=tokens)

    async def drain(self) -> None:
        """Refuse new work, finish what was admitted, then close."""
        self._draining = True
        while self._requests:
            self._idle.clear()
            await self._idle.wait()
        await self.close()

    async def close(self) -> None:
        """Refuse new work, fail what waits, end the worker and the encoder."""
        with self._changed:
            self._closing = True
            waiting, self._queue = self._queue, []
            self._changed.notify_all()
        error = NotReady("the model is being closed", retry_after=5, hint="try again shortly")
        self._deliver([(item, error) for item in waiting])
        await asyncio.to_thread(self._thread.join)
        self._encoder.close()

    def _admit(self, items: int, *, urgent: bool) -> None:
        if self._closing or self._draining:
            raise NotReady("the model is being closed", retry_after=5, hint="try again shortly")
        waiting = len(self._queue)
        full = urgent and self._requests >= self._limits.queue_requests
        if full or (waiting and waiting + items > self._limits.queue_items):
            wait = max(1.0, waiting * self._seconds_per_item)
            raise Overloaded(
                f"{self._encoder.spec.model}: {self._requests} requests with {waiting} items wait, "
                f"the limit is {self._limits.queue_requests} requests and "
                f"{self._limits.queue_items} items",
                retry_after=wait,
                hint="send again after Retry-After seconds, or send fewer at once",
            )
        self._requests += 1

    async def _tokenized(
        self, items: Sequence[str | Pair | Encoded], *, truncate: bool
    ) -> Sequence[Encoded | OndolError]:
        ready = [item for item in items if isinstance(item, Encoded)]
        if len(ready) == len(items):
            return ready
        raw = [item for item in items if not isinstance(item, Encoded)]
        return await asyncio.to_thread(self._encoder.tokenize, raw, truncate=truncate)

    def _enqueue(self, encoded: Sequence[Encoded | OndolError], *, urgent: bool) -> _Request:
        loop = asyncio.get_running_loop()
        runnable = [(i, e) for i, e in enumerate(encoded) if isinstance(e, Encoded)]
        request = _Request(
            values=[e if isinstance(e, OndolError) else None for e in encoded],
            remaining=len(runnable),
            enqueued=self._clock.monotonic(),
            future=loop.create_future(),
            loop=loop,
        )
        with self._changed:
            if self._closing:
                raise NotReady("the model is being closed", retry_after=5, hint="try again shortly")
            self._queue.extend(_Item(request, i, e, urgent) for i, e in runnable)
            self._changed.notify()
        return request

    async def _wait(self, request: _Request, *, urgent: bool) -> None:
        """Wait for the last item; the queue limit counts only while nothing of it has run.

        Bulk work yields to every urgent request, so it may wait ``BULK_PATIENCE`` times as long.
        """
        limit = self._limits.queue_seconds * (1 if urgent else BULK_PATIENCE)
        while True:
            done, _ = await asyncio.wait([request.future], timeout=limit)
            if done:
                return
            if not request.started:
                raise Overloaded(
                    f"waited {limit:g} s in the queue of {self._encoder.spec.model}",
                    retry_after=max(1.0, len(self._queue) * self._seconds_per_item),
                    hint="the machine is overloaded: send less at once or raise lanes.queue_seconds",
                    code="queue_deadline_exceeded",
                )

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closing:
                    self._changed.wait()
                if self._closing:
                    return
                self._queue = [item for item in self._queue if not item.request.cancelled]
                chosen = next_batch(self._queue, self._budget)
                batch = [self._queue[i] for i in chosen]
                for i in reversed(chosen):
                    del self._queue[i]
            if batch:
                self._run(batch)

    def _run(self, batch: Sequence[_Item]) -> None:
        started = self._clock.monotonic()
        for item in batch:
            item.request.started = item.request.started or started
        results = self._values_of(batch)
        seconds = self._clock.monotonic() - started
        self._seconds_per_item += 0.1 * (seconds / len(batch) - self._seconds_per_item)
        self._deliver(results)
        longest = max(item.tokens for item in batch)
        self._observer.observe(
            BatchRun(
                model=self._encoder.spec.model,
                items=len(batch),
                tokens=sum(item.tokens for item in batch),
                padded_tokens=longest * len(batch),
                seconds=seconds,
                failed=all(isinstance(value, OndolError) for _, value in results),
            )
        )

    def _values_of(self, batch: Sequence[_Item]) -> list[tuple[_Item, Value]]:
        try:
            rows: FloatMatrix = self._encoder.run([item.encoded for item in batch])
            return list(zip(batch, rows, strict=True))
        except Exception as error:
            if len(batch) > 1:
                _log.warning(
                    "a batch of %d failed (%s); running its items alone", len(batch), error
                )
                return [pair for item in batch for pair in self._values_of([item])]
            if isinstance(error, OndolError):
                return [(batch[0], error)]
            _log.exception("%s failed", self._encoder.spec.model)
            return [
                (
                    batch[0],
                    BackendError(f"{self._encoder.spec.model} failed: {error}", hint="see the log"),
                )
            ]

    def _deliver(self, results: Sequence[tuple[_Item, Value]]) -> None:
        now = self._clock.monotonic()
        for item, value in results:
            request = item.request
            request.values[item.index] = value
            request.remaining -= 1
            if request.remaining == 0 and not request.cancelled:
                request.finished = now
                try:
                    request.loop.call_soon_threadsafe(_finish, request.future)
                except RuntimeError:
                    _log.debug("the caller's event loop has gone")


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
