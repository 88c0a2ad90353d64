"""The dispatcher and its policies over a modelled engine and a clock of its own: minutes in seconds.

Runs the very code that serves (``Dispatcher``, ``CostModel``, policies); only time and the engine
are made up. The engine computes in steps, as llama.cpp does: one token for each request that
decodes, and a chunk of at most one prompt. Knows no model, no HTTP and no thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from ondol.core.clock import ManualClock
from ondol.core.errors import Overloaded
from ondol.core.request_terms import RequestTerms
from ondol.core.settings.lane_sections import LanesSettings
from ondol.core.timers import ManualTimers
from ondol.runtime.generation.cost import CostModel, Estimate, PromptShape, Served
from ondol.runtime.generation.dispatcher import Dispatcher
from ondol.runtime.generation.lane_queue import QueuedRequest
from ondol.runtime.generation.policy import Policy

_CHARS_PER_TOKEN = 3.7
_TURNS = 4
"""Turns of the event loop in which everything that an event set off has run."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds the modelled engine takes. A step of ``k`` decoding requests and ``n`` prompt tokens
    takes ``step`` (if k > 0) + ``per_request``·k + ``per_token``·n + ``per_pair``·n·(tokens before)."""

    per_token: float
    step: float
    per_request: float
    per_pair: float = 0.0
    chunk: int = 128

    def prefill(self, tokens: int) -> float:
        """Return the seconds of a prompt that is read alone."""
        return tokens * self.per_token + self.per_pair * tokens * tokens / 2


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of a schedule: when it comes, how large it is, what it was promised."""

    at: float
    prompt_tokens: int
    output_tokens: int
    deadline_ms: float | None = None
    lane: str = "chat"


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of an arrival: ``first_token`` seconds after it, or why and when it was refused."""

    arrival: Arrival
    first_token: float | None
    end: float | None
    waited: float
    predicted: float | None = None
    code: str = ""

    @property
    def met(self) -> bool:
        deadline = self.arrival.deadline_ms
        return self.first_token is not None and (
            deadline is None or self.first_token * 1e3 <= deadline
        )


@dataclass(slots=True, eq=False)
class _Job:
    ticket: QueuedRequest
    arrival: Arrival
    unread: int
    left: int
    predicted: float | None
    first_token: float = 0.0
    beside: int = 0


@dataclass(slots=True)
class _Step:
    ends: float
    reading: _Job | None
    chunk: int
    decoding: list[_Job] = field(default_factory=list)
    times: int = 1


class Simulation:
    """One run of a schedule; ``slots`` and the lanes' queues as in a server."""

    def __init__(
        self, speed: Speed, *, policy: Policy, slots: int, lanes: LanesSettings, warm: bool = True
    ) -> None:
        self._speed = speed
        self._clock = ManualClock()
        self._timers = ManualTimers(self._clock)
        self._cost = CostModel(slots=slots, tokens_per_second=1.0 / speed.per_token)
        self._dispatcher = Dispatcher(
            slots=slots,
            lanes=lanes,
            policy=policy,
            clock=self._clock,
            timers=self._timers,
            may_run=lambda: True,
            trusted=lambda: self._cost.measured,
            step=self._cost.step,
            jitter=lambda: 0.5,
        )
        self._jobs: list[_Job] = []
        self._step: _Step | None = None
        self._fates: list[Fate] = []
        if warm:
            self._warm_up(slots)

    async def run(self, schedule: Sequence[Arrival]) -> list[Fate]:
        """Return what became of every arrival, in the order in which that was settled."""
        coming = sorted(schedule, key=lambda arrival: arrival.at)
        tasks: list[asyncio.Task[None]] = []
        while coming or self._jobs or len(self._fates) < len(schedule):
            self._advance(coming)
            while coming and coming[0].at <= self._clock.monotonic():
                tasks.append(asyncio.create_task(self._request(coming.pop(0))))
            await self._settle()
            if self._step is not None and self._step.ends <= self._clock.monotonic():
                self._finish_step(self._step)
                await self._settle()
            if self._step is None and self._jobs:
                self._step = self._begin_step(coming)
        await asyncio.gather(*tasks)
        return self._fates

    def _advance(self, coming: Sequence[Arrival]) -> None:
        """Move the clock to whatever happens next."""
        due = [at for at in (self._timers.next_at,) if at is not None]
        if coming:
            due.append(coming[0].at)
        if self._step is not None:
            due.append(self._step.ends)
        self._timers.advance(max(0.0, min(due) - self._clock.monotonic()))

    async def _settle(self) -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    async def _request(self, arrival: Arrival) -> None:
        now = self._clock.monotonic()
        shape = _shape(arrival)

        def size(others: int) -> Estimate:
            return self._cost.estimate(
                shape, lane=arrival.lane, max_tokens=arrival.output_tokens, others=others
            )

        terms = RequestTerms(lane=arrival.lane, deadline_ms=arrival.deadline_ms)
        try:
            ticket = await self._dispatcher.acquire(size, terms)
        except Overloaded as refused:
            waited = self._clock.monotonic() - now
            self._fates.append(Fate(arrival, None, None, waited, code=refused.code))
            return
        predicted = None if ticket.predicted_ms is None else ticket.predicted_ms / 1e3
        self._jobs.append(
            _Job(ticket, arrival, arrival.prompt_tokens, arrival.output_tokens, predicted)
        )

    def _begin_step(self, coming: Sequence[Arrival]) -> _Step:
        """Compute the next step, or as many alike as end before anything else happens."""
        reading = next((job for job in self._jobs if job.unread), None)
        decoding = [job for job in self._jobs if not job.unread]
        speed, now = self._speed, self._clock.monotonic()
        seconds = speed.per_request * len(decoding) + (speed.step if decoding else 0.0)
        if reading is not None:
            chunk = min(reading.unread, speed.chunk)
            before = reading.arrival.prompt_tokens - reading.unread
            seconds += chunk * (speed.per_token + speed.per_pair * (before + chunk / 2))
            return _Step(now + seconds, reading, chunk, decoding)
        times = min(job.left for job in decoding)
        until = [at for at in (self._timers.next_at,) if at is not None]
        until += [coming[0].at] if coming else []
        if until:
            times = min(times, max(1, int((min(until) - now) / seconds)))
        return _Step(now + seconds * times, None, 0, decoding, times)

    def _finish_step(self, step: _Step) -> None:
        self._step = None
        for job in step.decoding:
            job.left -= step.times
            job.ticket.produced += step.times
            if job.left <= 0:
                self._leave(job)
        if step.reading is not None:
            step.reading.unread -= step.chunk
            if not step.reading.unread:
                self._first_token(step.reading)

    def _first_token(self, job: _Job) -> None:
        job.first_token = self._clock.monotonic()
        job.left -= 1
        job.ticket.produced = 1
        job.beside = self._dispatcher.others_decoding()
        self._dispatcher.began(job.ticket)
        if job.left <= 0:
            self._leave(job)

    def _leave(self, job: _Job) -> None:
        now = self._clock.monotonic()
        self._jobs.remove(job)
        self._cost.learn(self._served(job, now))
        self._dispatcher.release(job.ticket, served=True)
        arrival = job.arrival
        self._fates.append(
            Fate(
                arrival,
                job.first_token - arrival.at,
                now - arrival.at,
                job.ticket.started - arrival.at,
                job.predicted,
            )
        )

    def _served(self, job: _Job, now: float) -> Served:
        return Served(
            shape=_shape(job.arrival),
            lane=job.arrival.lane,
            prompt_tokens=job.arrival.prompt_tokens,
            cached_tokens=0,
            output_tokens=job.arrival.output_tokens,
            max_tokens=job.arrival.output_tokens,
            prefill=job.first_token - job.ticket.started,
            decode=now - job.first_token,
            others=job.ticket.others,
            beside=(job.beside + self._dispatcher.others_decoding() - 1) / 2,
            expected_prefill=job.ticket.estimate.prefill,
        )

    def _warm_up(self, slots: int) -> None:
        """Teach the estimates what a server has learnt after its first requests."""
        for tokens in (50, 200, 400, 800) * 3:
            arrival = Arrival(0.0, tokens, 32)
            for others in (0, slots - 1):
                step = self._speed.step + self._speed.per_request * (others + 1)
                chunks = -(-tokens // self._speed.chunk)
                waits = chunks * (
                    self._speed.step * bool(others) + self._speed.per_request * others
                )
                self._cost.learn(
                    Served(
                        shape=_shape(arrival),
                        lane="chat",
                        prompt_tokens=tokens,
                        cached_tokens=0,
                        output_tokens=32,
                        max_tokens=32,
                        prefill=self._speed.prefill(tokens) + waits,
                        decode=31 * step,
                        others=others,
                        beside=others,
                        expected_prefill=0.0,
                    )
                )


def _shape(arrival: Arrival) -> PromptShape:
    return PromptShape(1, int(arrival.prompt_tokens * _CHARS_PER_TOKEN), 0)
