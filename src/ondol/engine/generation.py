"""The asynchronous front of a generator: a bounded queue, slots, limits, and the truth about time.

Each running request has a thread of a dedicated pool that drives ``backend.generate``; its slot is
free only when that call has returned. Every wait has a limit and a name. A caller that leaves is
out of the queue at once, or cancels the running generation. Emits ``RequestFinished`` exactly once
per request. Knows no HTTP and no model; does not own the backend.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ondol.backends.base import Generator, GeneratorHealth
from ondol.core.cancel import CancelToken
from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import (
    BackendError,
    Cancelled,
    DeadlineExceeded,
    NotReady,
    OndolError,
    Refused,
)
from ondol.core.observe import NullObserver, Observer, RequestFinished, RequestOutcome, Timing
from ondol.core.types import DoneEvent, GenerationEvent, GenerationRequest, Usage
from ondol.engine.admission import SlotQueue, closing_error
from ondol.engine.lane import LaneSnapshot
from ondol.engine.policy import NextIndex, next_index
from ondol.engine.relay import Relay

_log = logging.getLogger("ondol.generation")

_RELAY_EVENTS = 64
_RESTART_SECONDS = 5.0
_CLOSE_GRACE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class GenerationLimits:
    """Longest wait for a slot; then, from when it runs, for the first token and for all of it."""

    queue_seconds: float = 60.0
    first_token_seconds: float = 120.0
    total_seconds: float = 300.0


@dataclass(slots=True)
class _Account:
    """What one request cost so far; settled exactly once."""

    lane: str
    timing: Timing
    arrived: float
    granted: float | None = None
    usage: Usage = field(default_factory=Usage)
    has_output: bool = False
    settled: bool = False


class _Run:
    """One generation in its thread: its switch, its events, and the limits that may end it."""

    def __init__(self, request: GenerationRequest, limits: GenerationLimits) -> None:
        self.request = request
        self.cancel = CancelToken()
        self.relay: Relay[GenerationEvent] = Relay(size=_RELAY_EVENTS)
        loop = asyncio.get_running_loop()
        self._first = loop.call_later(
            limits.first_token_seconds,
            self._expire,
            "first_token",
            limits.first_token_seconds,
        )
        self._total = loop.call_later(
            limits.total_seconds, self._expire, "total", limits.total_seconds
        )

    def saw_output(self) -> None:
        self._first.cancel()

    def finish(self) -> None:
        """No limit applies any more."""
        self._first.cancel()
        self._total.cancel()

    def abort(self, error: OndolError) -> None:
        """End the stream with ``error`` and stop the backend."""
        self.finish()
        self.relay.end(error)
        self.leave()

    def leave(self) -> None:
        """The caller is gone: stop the backend and drop what it still yields."""
        self.finish()
        self.relay.stop()
        self.cancel.cancel()

    def _expire(self, name: str, seconds: float) -> None:
        self.abort(
            DeadlineExceeded(
                f"the generation ran into its {name.replace('_', ' ')} limit of {seconds:g} s",
                hint=f"ask for less, or raise generation.{name}_seconds",
                code=f"{name}_deadline_exceeded",
            )
        )


class GenerationEngine:
    """Runs a ``Generator`` for many callers; used on one event loop."""

    def __init__(
        self,
        backend: Generator,
        *,
        slots: int,
        queue: int,
        limits: GenerationLimits | None = None,
        clock: Clock | None = None,
        observer: Observer | None = None,
        policy: NextIndex = next_index,
    ) -> None:
        self._backend = backend
        self._limits = limits or GenerationLimits()
        self._clock = clock or SystemClock()
        self._observer = observer or NullObserver()
        self._runs: set[_Run] = set()
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="ondol-generate")
        self._queue = SlotQueue(
            name=backend.spec.model,
            slots=slots,
            queue=queue,
            queue_seconds=self._limits.queue_seconds,
            clock=self._clock,
            may_run=self._may_run,
            policy=policy,
        )

    @property
    def ready(self) -> bool:
        return self._backend.health().ready and not self._queue.snapshot().draining

    @property
    def backend(self) -> Generator:
        return self._backend

    def health(self) -> GeneratorHealth:
        """Return the backend's health as it is now."""
        return self._backend.health()

    def snapshot(self) -> LaneSnapshot:
        """Return the queue as it is now."""
        return self._queue.snapshot()

    async def stream(
        self, request: GenerationRequest, *, lane: str = "chat", timing: Timing | None = None
    ) -> AsyncGenerator[GenerationEvent, None]:
        """Yield the events of one generation; the last is the only ``DoneEvent``.

        Closing the iterator or cancelling the task leaves the queue or stops the generation.
        Raises ``Overloaded`` (queue full), ``NotReady`` (starting, restarting, draining),
        ``DeadlineExceeded`` (``first_token`` or ``total`` limit) and what the backend
        raises. ``timing`` gains ``queue_ms``, ``prefill_ms``, ``decode_ms`` and ``inference_ms``;
        ``ttft_ms`` and ``total_ms`` count from this call.
        """
        account = _Account(lane, timing or Timing(), arrived=self._clock.monotonic())
        run: _Run | None = None
        try:
            self._require_ready()
            run = await self._start(request, account)
            while (event := await run.relay.get()) is not None:
                if isinstance(event, DoneEvent):
                    account.usage = event.usage
                    account.timing.prefill_ms += event.prefill_ms
                    account.timing.decode_ms += event.decode_ms
                    self._settle(account, "cancelled" if _was_cancelled(event) else "ok")
                    run.finish()
                elif not account.has_output:
                    account.has_output = True
                    account.timing.ttft_ms = (self._clock.monotonic() - account.arrived) * 1e3
                    run.saw_output()
                yield event
        except BaseException as error:
            self._settle(account, *_outcome(error))
            raise
        finally:
            if run is not None:
                run.leave()

    async def close(self, drain_seconds: float) -> None:
        """Admit nothing more, let what was admitted end within ``drain_seconds``, cancel the rest.

        Returns when no backend call is running, or after a further grace of 10 s.
        """
        self._queue.close()
        if not await self._idle_within(drain_seconds):
            self._queue.fail_waiting()
            for run in list(self._runs):
                run.abort(closing_error())
            if not await self._idle_within(_CLOSE_GRACE_SECONDS):
                _log.warning("%d generations did not stop when cancelled", len(self._runs))
        self._pool.shutdown(wait=False)

    async def _start(self, request: GenerationRequest, account: _Account) -> _Run:
        await self._queue.acquire(
            lane=account.lane,
            prompt_chars=sum(len(message.content) for message in request.messages),
            max_tokens=request.max_tokens,
        )
        account.granted = self._clock.monotonic()
        account.timing.queue_ms += (account.granted - account.arrived) * 1e3
        loop = asyncio.get_running_loop()
        run = _Run(request, self._limits)
        self._runs.add(run)
        self._pool.submit(self._work, run, loop, account.granted)
        return run

    def _work(self, run: _Run, loop: asyncio.AbstractEventLoop, started: float) -> None:
        """In a thread of the pool: drive the backend to its end."""
        error: BaseException | None = None
        done: DoneEvent | None = None
        try:
            for event in self._backend.generate(run.request, cancel=run.cancel):
                if isinstance(event, DoneEvent):
                    done = event
                if not run.relay.put(event):
                    run.cancel.cancel()
            if done is None:
                error = BackendError("the generator ended without saying so", hint="see the log")
        except OndolError as raised:
            error = raised
        except Exception as raised:
            _log.exception("the generator failed")
            error = BackendError(f"the generator failed: {raised}", hint="see the log")
        served = done is not None and not _was_cancelled(done)
        seconds = self._clock.monotonic() - started if served else None
        try:
            loop.call_soon_threadsafe(self._returned, run, error, seconds)
        except RuntimeError:
            _log.debug("the event loop has gone")

    def _returned(self, run: _Run, error: BaseException | None, seconds: float | None) -> None:
        """On the loop: the backend's call has ended, so its slot is free."""
        self._runs.discard(run)
        run.finish()
        run.relay.end(error)
        self._queue.release(service_seconds=seconds)

    async def _idle_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._queue.idle()
        except TimeoutError:
            return False
        return True

    def _may_run(self) -> bool:
        return self._backend.health().state not in ("starting", "restarting")

    def _require_ready(self) -> None:
        health = self._backend.health()
        if not health.ready:
            reason = f": {health.reason}" if health.reason else ""
            raise NotReady(
                f"the generator is {health.state}{reason}",
                retry_after=_RESTART_SECONDS,
                hint="see /health/ready; send again after Retry-After",
            )

    def _settle(self, account: _Account, outcome: RequestOutcome, code: str = "") -> None:
        if account.settled:
            return
        account.settled = True
        now = self._clock.monotonic()
        account.timing.total_ms = (now - account.arrived) * 1e3
        if account.granted is not None:
            account.timing.inference_ms += (now - account.granted) * 1e3
        else:
            account.timing.queue_ms += (now - account.arrived) * 1e3
        self._observer.observe(
            RequestFinished(
                lane=account.lane,
                model=self._backend.spec.model,
                outcome=outcome,
                timing=account.timing,
                tokens_in=account.usage.prompt_tokens,
                tokens_out=account.usage.completion_tokens,
                tokens_cached=account.usage.cached_tokens,
                code=code,
            )
        )


def _was_cancelled(done: DoneEvent) -> bool:
    return done.finish_reason == "cancelled"


def _outcome(error: BaseException) -> tuple[RequestOutcome, str]:
    """Return how a request that ended with ``error`` is counted, and the error's code."""
    if isinstance(error, Refused):
        return "refused", error.code
    if isinstance(error, DeadlineExceeded):
        return "deadline", error.code
    if isinstance(error, OndolError) and not isinstance(error, Cancelled):
        return "failed", error.code
    if isinstance(error, (asyncio.CancelledError, GeneratorExit, Cancelled)):
        return "cancelled", "cancelled"
    return "failed", "internal"
