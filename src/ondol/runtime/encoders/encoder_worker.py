"""The one thread that runs an encoder: takes the next batch, runs it, hands the values over.

Owns the line of waiting items and the budget of a batch, and guards both. Callers add items from
their event loop; each loop is woken once for a whole batch. Knows no tokenising and no admission.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence

from ondol.backends.protocols import EncoderBackend
from ondol.core.clock import Clock
from ondol.core.errors import OndolError
from ondol.core.events import BatchBudgetChanged, BatchRun, Event, Observer
from ondol.runtime.encoders.batching import AdaptiveBudget, Aging, Budget, MemoryLimits, batch_cost
from ondol.runtime.encoders.bulk_throttle import BulkThrottle, ThrottleLimits
from ondol.runtime.encoders.encoder_queue import EncodeRequest, EncoderQueue, QueuedItem
from ondol.runtime.encoders.isolation import Value, run_batch

_log = logging.getLogger("ondol.batcher")

_FIRST_GUESS = 0.01
_SMOOTHING = 0.1


class EncoderWorker:
    """Runs what waits, batch after batch, until it is stopped. ``add`` and ``stop`` from any thread."""

    def __init__(
        self,
        encoder: EncoderBackend,
        *,
        tokens: int,
        items: int,
        memory: MemoryLimits,
        aging: Aging,
        patience: ThrottleLimits,
        free_bytes: Callable[[], int | None],
        clock: Clock,
        observer: Observer,
    ) -> None:
        spec = encoder.spec
        full = Budget(tokens=tokens, items=items, padded=spec.padded, buckets=spec.buckets)
        self._encoder = encoder
        self._full = full
        self._budget = AdaptiveBudget(full, limits=memory, free_bytes=free_bytes, clock=clock)
        self._line = EncoderQueue(aging=aging)
        self._courtesy = BulkThrottle(patience)
        self._clock = clock
        self._observer = observer
        self._changed = threading.Condition()
        self._stopping = False
        self._running = 0
        self._seconds_per_item = _FIRST_GUESS
        self._thread = threading.Thread(target=self._work, name=f"ondol-{spec.model}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Items that have not started."""
        return len(self._line)

    @property
    def running(self) -> int:
        """Items in the batch that runs now."""
        return self._running

    @property
    def budget(self) -> Budget:
        """What the next batch may cost."""
        return self._budget.current

    @property
    def seconds_per_item(self) -> float:
        """How long an item takes, smoothed over the last batches; a guess before the first."""
        return self._seconds_per_item

    def add(self, request: EncodeRequest, items: Sequence[QueuedItem], *, failed: int) -> bool:
        """Let ``items`` of ``request`` wait and strike off its ``failed``; false once stopped."""
        with self._changed:
            if self._stopping:
                return False
            request.remaining -= failed
            if items:
                self._line.extend(items, urgent=request.urgent)
                if request.urgent:
                    self._courtesy.urgent_came(self._clock.monotonic())
                self._changed.notify()
        return True

    def stop(self, error: Callable[[], OndolError]) -> None:
        """Run nothing more; what waits gets an ``error`` each."""
        with self._changed:
            self._stopping = True
            waiting = self._line.clear()
            self._changed.notify_all()
        self._deliver([(item, error()) for item in waiting])

    def join(self) -> None:
        """Return once the batch that runs is through; after ``stop``."""
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._line and not self._stopping:
                    self._changed.wait()
                if self._stopping:
                    return
            if self._budget.look():
                self._tell_budget()
            with self._changed:
                self._rest()
                if self._stopping:
                    return
                now, whole = self._clock.monotonic(), self._budget.current
                bulk = self._courtesy.bulk(whole, now=now)
                batch = self._line.take(whole, now=now, bulk=bulk)
                self._running = len(batch)
            if batch:
                self._run(batch)

    def _rest(self) -> None:
        """Before bulk work, leave the encoder free a moment for who asks again and again."""
        if self._line.urgent:
            return
        now, streak = self._clock.monotonic(), self._line.urgent_streak
        if seconds := self._courtesy.rest(now=now, streak=streak):
            self._changed.wait(seconds)

    def _run(self, batch: Sequence[QueuedItem]) -> None:
        started = self._clock.monotonic()
        for item in batch:
            item.request.started = item.request.started or started
        ran = run_batch(self._encoder, [item.encoded for item in batch])
        seconds = self._clock.monotonic() - started
        self._seconds_per_item += _SMOOTHING * (seconds / len(batch) - self._seconds_per_item)
        tokens = [item.tokens for item in batch]
        with self._changed:
            self._courtesy.ran(batch_cost(tokens, self._full), seconds)
        self._running = 0
        self._deliver(list(zip(batch, ran.values, strict=True)))
        self._tell(
            BatchRun(
                model=self._encoder.spec.model,
                items=len(batch),
                tokens=sum(tokens),
                padded_tokens=batch_cost(tokens, self._full),
                seconds=seconds,
                failed=all(isinstance(value, OndolError) for value in ran.values),
            )
        )
        if ran.ran_out and self._budget.ran_out():
            self._tell_budget()

    def _deliver(self, results: Sequence[tuple[QueuedItem, Value]]) -> None:
        """Hand the values over and wake the callers whose last this was, once for each loop."""
        now = self._clock.monotonic()
        ready: dict[asyncio.AbstractEventLoop, list[EncodeRequest]] = defaultdict(list)
        with self._changed:
            for item, value in results:
                request = item.request
                request.values[item.index] = value
                request.remaining -= 1
                request.finished = now
                if request.remaining == 0 and not request.cancelled:
                    ready[request.loop].append(request)
        for loop, requests in ready.items():
            try:
                loop.call_soon_threadsafe(_finish, requests)
            except RuntimeError:
                _log.debug("the callers' event loop has gone")

    def _tell_budget(self) -> None:
        tokens, reason = self._budget.current.tokens, self._budget.reason
        model = self._encoder.spec.model
        _log.warning("%s: batches of at most %d tokens now (%s)", model, tokens, reason)
        self._tell(
            BatchBudgetChanged(
                model=model, tokens=tokens, full_tokens=self._full.tokens, reason=reason
            )
        )

    def _tell(self, event: Event) -> None:
        try:
            self._observer.observe(event)
        except Exception:  # an observer must not end the worker
            _log.exception("an observer failed")


def _finish(requests: Sequence[EncodeRequest]) -> None:
    for request in requests:
        if not request.future.done():
            request.future.set_result(None)
