"""Keeps one encoder busy: admission, a bounded queue, batches, one worker thread.

Owns the encoder it is given; nobody else calls ``run``. Every item gets a value or an error: one
bad input fails alone, and a batch that finds no memory is halved and tried once more. Knows no
HTTP and no roles; an item is a text or a pair, its cost is its tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from ondol.backends.protocols import EncoderBackend, EncoderSpec, MemoryAware
from ondol.core import machine
from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import BackendError, NotReady, OndolError, Overloaded
from ondol.core.events import NullObserver, Observer, Timing
from ondol.core.types import Encoded, Pair
from ondol.runtime.encoders.batching import Aging, MemoryLimits
from ondol.runtime.encoders.bulk_throttle import ThrottleLimits
from ondol.runtime.encoders.encoder_queue import EncodeRequest, QueuedItem
from ondol.runtime.encoders.encoder_worker import EncoderWorker
from ondol.runtime.encoders.isolation import Value

BULK_PATIENCE = 60
INLINE_CHARS = 1024
"""Texts up to this long together are tokenised on the event loop: quicker than a hop to a thread."""
SLICE_CHARS = 65_536
"""About how much text is tokenised at once: what is ready runs while the rest is tokenised."""

Raw = str | Pair | Encoded


@dataclass(frozen=True, slots=True)
class BatcherLimits:
    """Bounds of one batcher: batch shape, waiting requests and items, and the longest wait."""

    token_budget: int = 2048
    max_batch: int = 64
    queue_requests: int = 512
    queue_items: int = 32_768
    queue_seconds: float = 60.0
    memory: MemoryLimits = field(default_factory=MemoryLimits)
    aging: Aging = field(default_factory=Aging)
    patience: ThrottleLimits = field(default_factory=ThrottleLimits)

    @property
    def bulk_seconds(self) -> float:
        """The longest wait of bulk work, which yields to every urgent request."""
        return self.queue_seconds * BULK_PATIENCE


@dataclass(frozen=True, slots=True)
class BatchResult:
    """One value (float32 row or error) and one token count per item, in the order they came.

    ``spec`` is the encoder that answered: what a caller holds may have been swapped meanwhile.
    """

    values: list[Value]
    tokens: list[int]
    spec: EncoderSpec | None = None


class Batcher:
    """Runs an encoder for many callers at once.

    ``free_bytes`` tells the free memory that batches adapt to; by default the encoder's own (a GPU),
    else this machine's.
    """

    def __init__(
        self,
        encoder: EncoderBackend,
        *,
        limits: BatcherLimits,
        clock: Clock | None = None,
        observer: Observer | None = None,
        free_bytes: Callable[[], int | None] | None = None,
    ) -> None:
        self._encoder = encoder
        self._limits = limits
        self._clock = clock or SystemClock()
        self._worker = EncoderWorker(
            encoder,
            tokens=limits.token_budget,
            items=limits.max_batch,
            memory=limits.memory,
            aging=limits.aging,
            patience=limits.patience,
            free_bytes=free_bytes or partial(_free_bytes, encoder),
            clock=self._clock,
            observer=observer or NullObserver(),
        )
        self._requests = 0
        self._tokenizing = 0
        self._closing = False
        self._idle = asyncio.Event()

    @property
    def encoder(self) -> EncoderBackend:
        return self._encoder

    @property
    def spec(self) -> EncoderSpec:
        return self._encoder.spec

    @property
    def depth(self) -> int:
        """Requests admitted and not yet answered."""
        return self._requests

    @property
    def waiting(self) -> int:
        """Items that have not started."""
        return self._worker.waiting

    @property
    def running(self) -> int:
        """Items in the batch that runs now."""
        return self._worker.running

    @property
    def capacity(self) -> int:
        return self._limits.queue_requests

    @property
    def token_budget(self) -> int:
        """Tokens that the next batch may cost; less than configured where memory is short."""
        return self._worker.budget.tokens

    @property
    def items_per_second(self) -> float:
        """How fast the queue drains, from the last batches; a guess before the first."""
        return 1.0 / self._worker.seconds_per_item

    @property
    def backlog_seconds(self) -> float:
        """How long what waits now will take, by the measured rate."""
        return self._worker.waiting * self._worker.seconds_per_item

    async def submit(
        self,
        items: Sequence[Raw],
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
        request = _request(len(items), urgent=urgent)
        try:
            await self._feed(request, items, truncate=truncate)
            if request.remaining:
                await self._wait(request)
        finally:
            request.cancelled = True
            self._requests -= 1
            if not self._requests:
                self._idle.set()
        if timing is not None:
            timing.tokenize_ms += request.tokenize_seconds * 1e3
            if request.finished:
                timing.queue_ms += (request.started - request.enqueued) * 1e3
                timing.inference_ms += (request.finished - request.started) * 1e3
        values = [
            BackendError("the model returned nothing for this item") if v is None else v
            for v in request.values
        ]
        return BatchResult(values=values, tokens=request.tokens, spec=self._encoder.spec)

    async def close(self, drain_seconds: float = 0.0) -> None:
        """Refuse new work, finish what was admitted within ``drain_seconds``, fail the rest.

        Ends the worker and the encoder.
        """
        self._closing = True
        if self._requests and drain_seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(drain_seconds):
                    await self._drained()
        self._worker.stop(_closing)
        await asyncio.to_thread(self._worker.join)
        self._encoder.close()

    async def _drained(self) -> None:
        while self._requests:
            self._idle.clear()
            await self._idle.wait()

    def _admit(self, items: int, *, urgent: bool) -> None:
        if self._closing:
            raise _closing()
        waiting = self._worker.waiting + self._tokenizing
        full = urgent and self._requests >= self._limits.queue_requests
        if full or (waiting and waiting + items > self._limits.queue_items):
            raise Overloaded(
                f"{self._encoder.spec.model}: {self._requests} requests with {waiting} items wait, "
                f"the limit is {self._limits.queue_requests} requests and "
                f"{self._limits.queue_items} items",
                retry_after=self._drain_seconds(waiting),
                hint="send again after Retry-After seconds, or send fewer at once",
            )
        self._requests += 1

    def _drain_seconds(self, waiting: int) -> float:
        return max(1.0, waiting * self._worker.seconds_per_item)

    async def _feed(self, request: EncodeRequest, items: Sequence[Raw], *, truncate: bool) -> None:
        """Tokenise ``items`` slice by slice; each waits for its batch as soon as it is tokenised."""
        self._tokenizing += len(items)
        left = len(items)
        try:
            for start, part in _slices(items):
                before = self._clock.monotonic()
                encoded = await self._tokenized(part, truncate=truncate)
                self._tokenizing -= len(part)
                left -= len(part)
                self._enqueue(request, encoded, start=start, since=before)
        finally:
            self._tokenizing -= left

    async def _tokenized(
        self, items: Sequence[Raw], *, truncate: bool
    ) -> Sequence[Encoded | OndolError]:
        ready = [item for item in items if isinstance(item, Encoded)]
        if len(ready) == len(items):
            return ready
        raw = [item for item in items if not isinstance(item, Encoded)]
        if sum(map(_chars, raw)) <= INLINE_CHARS:
            return self._encoder.tokenize(raw, truncate=truncate)
        return await asyncio.to_thread(self._encoder.tokenize, raw, truncate=truncate)

    def _enqueue(
        self,
        request: EncodeRequest,
        encoded: Sequence[Encoded | OndolError],
        *,
        start: int,
        since: float,
    ) -> None:
        now = self._clock.monotonic()
        request.tokenize_seconds += now - since
        request.enqueued = request.enqueued or now
        items = []
        failed = 0
        for index, one in enumerate(encoded, start):
            if isinstance(one, OndolError):
                request.values[index] = one
                failed += 1
            else:
                request.tokens[index] = one.tokens
                items.append(QueuedItem(request, index, one, now))
        if not self._worker.add(request, items, failed=failed):
            raise _closing()

    async def _wait(self, request: EncodeRequest) -> None:
        """Wait for the last item; the queue limit counts only while nothing of it has run.

        Bulk work yields to every urgent request, so it may wait ``BULK_PATIENCE`` times as long.
        """
        limits = self._limits
        limit = limits.queue_seconds if request.urgent else limits.bulk_seconds
        alarm = request.loop.call_later(limit, self._waited_out, request, limit)
        try:
            await request.future
        finally:
            alarm.cancel()

    def _waited_out(self, request: EncodeRequest, limit: float) -> None:
        if not request.started and not request.future.done():
            request.future.set_exception(
                Overloaded(
                    f"waited {limit:g} s in the queue of {self._encoder.spec.model}",
                    retry_after=self._drain_seconds(self._worker.waiting),
                    hint="the machine is overloaded: send less at once or raise the lane's queue_seconds",
                    code="queue_deadline_exceeded",
                )
            )


def _free_bytes(encoder: EncoderBackend) -> int | None:
    """Return the free memory of the encoder's own device, else of this machine."""
    own = encoder.free_bytes() if isinstance(encoder, MemoryAware) else None
    return machine.free_bytes() if own is None else own


def _request(items: int, *, urgent: bool) -> EncodeRequest:
    loop = asyncio.get_running_loop()
    return EncodeRequest(
        values=[None] * items,
        tokens=[0] * items,
        remaining=items,
        urgent=urgent,
        future=loop.create_future(),
        loop=loop,
    )


def _slices(items: Sequence[Raw]) -> Iterator[tuple[int, Sequence[Raw]]]:
    """Yield (place of the first, items) in pieces of about ``SLICE_CHARS``."""
    start = chars = 0
    for place, item in enumerate(items):
        chars += _chars(item)
        if chars >= SLICE_CHARS:
            yield start, items[start : place + 1]
            start, chars = place + 1, 0
    if start < len(items):
        yield start, items[start:]


def _chars(item: Raw) -> int:
    if isinstance(item, Encoded):
        return 0
    return len(item) if isinstance(item, str) else len(item.query) + len(item.document)


def _closing() -> NotReady:
    return NotReady("the model is being closed", retry_after=5, hint="try again shortly")
