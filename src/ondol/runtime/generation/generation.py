"""The asynchronous front of a generator: lanes, slots, limits, and the truth about time.

Each running request has a thread of a dedicated pool that drives ``backend.generate``; its slot is
free only when that call has returned. Every wait has a limit and a name. A caller that leaves is
out of the queue at once, or cancels the running generation. What each request cost teaches the
estimates of the next. Emits ``RequestFinished`` exactly once per request. Knows no HTTP and no
model; owns the backend, and ends it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from ondol.backends.protocols import Generator, GeneratorHealth, PrefixAware
from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import (
    BackendError,
    InvalidInput,
    NotReady,
    OndolError,
    RequestOutcome,
)
from ondol.core.events import NullObserver, Observer, RequestFinished, Timing, counted_as
from ondol.core.lane_state import QueueSnapshot
from ondol.core.request_terms import RequestTerms
from ondol.core.settings.lane_sections import BATCH, LANES, LanesSettings
from ondol.core.types import DoneEvent, GenerationEvent, GenerationRequest
from ondol.runtime.generation import refusals
from ondol.runtime.generation.cost import CostModel, Estimate, PromptShape, Served
from ondol.runtime.generation.dispatcher import Dispatcher
from ondol.runtime.generation.lane_queue import Size
from ondol.runtime.generation.policy import Policy, Reading, Slo, pieces
from ondol.runtime.generation.running import GenerationLimits, GenerationRun, RequestAccount
from ondol.runtime.pressure import Pressure

_log = logging.getLogger("ondol.generation")

_RESTART_SECONDS = 5.0
_CLOSE_GRACE_SECONDS = 10.0


class GenerationEngine:
    """Runs a ``Generator`` for many callers; used on one event loop.

    ``tokens_per_second`` is what is known of its prefill before anything was measured, 0 nothing.
    """

    def __init__(
        self,
        backend: Generator,
        *,
        slots: int,
        lanes: LanesSettings | None = None,
        policy: Policy | None = None,
        limits: GenerationLimits | None = None,
        tokens_per_second: float = 0.0,
        clock: Clock | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._backend = backend
        self._lanes = lanes or LanesSettings()
        self._limits = limits or GenerationLimits()
        self._clock = clock or SystemClock()
        self._observer = observer or NullObserver()
        self._runs: set[GenerationRun] = set()
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="ondol-generate")
        self._reading = Reading()
        self._cost = CostModel(slots=slots, tokens_per_second=tokens_per_second)
        self._dispatcher = Dispatcher(
            slots=slots,
            prefills=backend.spec.prefills or slots,
            lanes=self._lanes,
            policy=policy or Slo(),
            clock=self._clock,
            may_run=self._may_run,
            trusted=lambda: self._cost.measured,
            step=self._cost.step,
        )

    @property
    def ready(self) -> bool:
        return self._backend.health().ready and not self._dispatcher.closed

    @property
    def backend(self) -> Generator:
        return self._backend

    def health(self) -> GeneratorHealth:
        """Return the backend's health as it is now."""
        return self._backend.health()

    @property
    def cost(self) -> CostModel:
        """What it has learnt of the cost of requests."""
        return self._cost

    def snapshot(self) -> QueueSnapshot:
        """Return the lanes as they are now."""
        return self._dispatcher.snapshot()

    def interactive(self) -> int:
        """Return how many requests of people wait or run now; cheap, unlike ``snapshot``."""
        return self._dispatcher.interactive()

    def press(self, pressure: Pressure) -> None:
        """Take over how short of resources the machine is."""
        self._dispatcher.press(pressure)

    async def stream(
        self,
        request: GenerationRequest,
        *,
        terms: RequestTerms | None = None,
        timing: Timing | None = None,
    ) -> AsyncGenerator[GenerationEvent, None]:
        """Yield the events of one generation; the last is the only ``DoneEvent``.

        Closing the iterator or cancelling the task leaves the queue or stops the generation.
        Raises ``Overloaded`` (no place, no hope of the deadline, shed), ``NotReady`` (starting,
        restarting, draining), ``DeadlineExceeded`` (``first_token`` or ``total`` limit) and what
        the backend raises. ``timing`` gains ``queue_ms``, ``prefill_ms``, ``decode_ms``,
        ``inference_ms`` and the pace of tokens; ``ttft_ms`` and ``total_ms`` count from the
        request's arrival.
        """
        account = self._account(terms or RequestTerms(), timing or Timing())
        run: GenerationRun | None = None
        try:
            self._require_ready()
            await self._read_ahead(request, account.terms)
            run = await self._start(request, account)
            while (event := await run.relay.get()) is not None:
                if isinstance(event, DoneEvent):
                    account.usage = event.usage
                    account.timing.prefill_ms += event.prefill_ms
                    account.timing.decode_ms += event.decode_ms
                    run.write_pace(account.timing)
                    self._settle(account, "cancelled" if _was_cancelled(event) else "ok")
                    run.finish()
                elif not account.has_output:
                    account.has_output = True
                    account.timing.ttft_ms = (self._clock.monotonic() - account.arrived) * 1e3
                    run.saw_output()
                yield event
        except BaseException as error:
            self._settle(account, *counted_as(error))
            raise
        finally:
            if run is not None:
                run.leave()

    async def close(self, drain_seconds: float = 0.0) -> None:
        """Admit nothing more, let what was admitted end within ``drain_seconds``, cancel the rest.

        Returns when no backend call is running, or after a further grace of 10 s, and the backend
        is closed.
        """
        self._dispatcher.close()
        if not await self._idle_within(drain_seconds):
            self._dispatcher.fail_waiting()
            for run in list(self._runs):
                run.abort(refusals.closing())
            if not await self._idle_within(_CLOSE_GRACE_SECONDS):
                _log.warning("%d generations did not stop when cancelled", len(self._runs))
        self._pool.shutdown(wait=False)
        await asyncio.to_thread(self._backend.close)

    def _account(self, terms: RequestTerms, timing: Timing) -> RequestAccount:
        try:
            lane = self._lanes.lane(terms.lane)
        except KeyError:
            raise InvalidInput(
                f"there is no lane {terms.lane!r}",
                hint=f"the lanes are {', '.join(LANES)}",
                code="unknown_lane",
                param="x-ondol-lane",
            ) from None
        return RequestAccount(
            terms,
            timing,
            arrived=self._clock.monotonic() - terms.elapsed_ms / 1e3,
            promise_ms=terms.deadline_ms or lane.sla_ms or None,
        )

    async def _read_ahead(self, request: GenerationRequest, terms: RequestTerms) -> None:
        """Read a long bulk prompt in pieces while people ask; note who is a person."""
        now = self._clock.monotonic()
        if terms.lane != BATCH:
            self._reading.asked(now)
            return
        if not (self._backend.spec.keeps_prefixes and self._reading.expects(now)) or request.tools:
            return
        for piece in pieces(request, prefill=self._sized(request, terms)(0).prefill):
            run = await self._start(piece, self._account(terms, Timing()))
            try:
                while (event := await run.relay.get()) is not None:
                    if isinstance(event, DoneEvent):
                        run.finish()
            finally:
                run.leave()

    async def _start(self, request: GenerationRequest, account: RequestAccount) -> GenerationRun:
        ticket = await self._dispatcher.acquire(self._sized(request, account.terms), account.terms)
        account.ticket = ticket
        account.predicted_ms = ticket.predicted_ms
        account.timing.queue_ms += (ticket.started - account.arrived) * 1e3
        account.timing.queue_ms -= account.terms.elapsed_ms
        loop = asyncio.get_running_loop()
        run = GenerationRun(_salted(request, account.terms), ticket, self._limits)
        self._runs.add(run)
        self._pool.submit(self._work, run, loop)
        return run

    def _sized(self, request: GenerationRequest, terms: RequestTerms) -> Size:
        """Return what estimates this request; its prompt is measured once, the caches each time."""
        shape = PromptShape.of(request.messages)
        salted = _salted(request, terms)
        backend = self._backend

        def size(others: int) -> Estimate:
            cached = backend.cached_chars(salted) if isinstance(backend, PrefixAware) else 0
            return self._cost.estimate(
                shape,
                lane=terms.lane,
                max_tokens=request.max_tokens,
                cached_chars=cached,
                others=others,
            )

        return size

    def _work(self, run: GenerationRun, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread of the pool: drive the backend to its end."""
        error: BaseException | None = None
        done: DoneEvent | None = None
        try:
            for event in self._backend.generate(run.request, cancel=run.cancel):
                if isinstance(event, DoneEvent):
                    done = event
                else:
                    self._note_token(run, loop)
                if not run.relay.put(event):
                    run.cancel.cancel()
            if done is None:
                error = BackendError("the generator ended without saying so", hint="see the log")
        except OndolError as raised:
            error = raised
        except Exception as raised:
            _log.exception("the generator failed")
            error = BackendError(f"the generator failed: {raised}", hint="see the log")
        try:
            loop.call_soon_threadsafe(self._returned, run, error, done)
        except RuntimeError:
            _log.debug("the event loop has gone")

    def _note_token(self, run: GenerationRun, loop: asyncio.AbstractEventLoop) -> None:
        run.times.append(self._clock.monotonic())
        run.ticket.produced = len(run.times)
        if len(run.times) == 1:
            try:
                loop.call_soon_threadsafe(self._began, run)
            except RuntimeError:
                _log.debug("the event loop has gone")

    def _began(self, run: GenerationRun) -> None:
        run.company = self._dispatcher.others_decoding()
        self._dispatcher.began(run.ticket)

    def _returned(
        self, run: GenerationRun, error: BaseException | None, done: DoneEvent | None
    ) -> None:
        """On the loop: the backend's call has ended, so its slot is free."""
        self._runs.discard(run)
        run.finish()
        run.relay.end(error)
        served = done is not None and not _was_cancelled(done)
        if served and done is not None:
            self._learn(run, done)
        self._dispatcher.release(run.ticket, served=served)

    def _learn(self, run: GenerationRun, done: DoneEvent) -> None:
        if not run.times:
            return
        ticket = run.ticket
        self._cost.learn(
            Served(
                shape=PromptShape.of(run.request.messages),
                lane=ticket.terms.lane,
                prompt_tokens=done.usage.prompt_tokens,
                cached_tokens=done.usage.cached_tokens,
                output_tokens=done.usage.completion_tokens,
                max_tokens=run.request.max_tokens,
                prefill=run.times[0] - ticket.started,
                decode=run.times[-1] - run.times[0],
                others=ticket.others,
                beside=(run.company + self._dispatcher.others_decoding() - 1) / 2,
                expected_prefill=ticket.estimate.prefill,
            )
        )

    async def _idle_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._dispatcher.idle()
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

    def _settle(self, account: RequestAccount, outcome: RequestOutcome, code: str = "") -> None:
        if account.settled:
            return
        account.settled = True
        now = self._clock.monotonic()
        ticket, timing = account.ticket, account.timing
        timing.total_ms = (now - account.arrived) * 1e3
        if ticket is not None:
            timing.inference_ms += (now - ticket.started) * 1e3
        else:
            timing.queue_ms += timing.total_ms - account.terms.elapsed_ms
        self._observer.observe(
            RequestFinished(
                lane=account.terms.lane,
                model=self._backend.spec.model,
                outcome=outcome,
                timing=timing,
                tokens_in=account.usage.prompt_tokens,
                tokens_out=account.usage.completion_tokens,
                tokens_cached=account.usage.cached_tokens,
                code=code,
                form=self._backend.spec.form,
                generated=True,
                deadline_ms=account.promise_ms,
                predicted_ms=account.predicted_ms,
            )
        )


def _salted(request: GenerationRequest, terms: RequestTerms) -> GenerationRequest:
    """Return the request with a prompt cache that only its tenant shares."""
    if not terms.tenant:
        return request
    return replace(request, cache_salt=f"{terms.tenant}/{request.cache_salt}")


def _was_cancelled(done: DoneEvent) -> bool:
    return done.finish_reason == "cancelled"
