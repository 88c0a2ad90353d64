"""What happened, said once, to whoever listens.

Rooms emit frozen events to an ``Observer``; telemetry listens from the side. Nothing here formats,
stores or counts. ``Timing`` is the one timing object a request carries through all rooms.

The event that the machine became shorter of resources, or less so.

One finished request as a flat, frozen record: what is stored, summed up and written to logs.

Made the moment a request ends, because its ``Timing`` may live on. Times are milliseconds; ``None``
is what was not measured or did not happen. Holds codes, counts and times, never text.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Literal, Protocol

from ondol.core.errors import OUTCOMES, Cancelled, OndolError, RequestOutcome, outcome_of


@dataclass(frozen=True, slots=True)
class PressureChanged:
    """What admission does from now on: ``concurrency`` is the share of slots in use, ``shed``
    closes the lane ``batch``; ``reasons`` name what is short, empty when it is over.
    """

    level: Literal["none", "high", "critical"]
    before: Literal["none", "high", "critical"]
    concurrency: float
    shed: bool
    reasons: tuple[str, ...] = ()


@dataclass(slots=True)
class Timing:
    """Where a request's time went, in milliseconds; rooms add to it as they work."""

    request_id: str = ""
    queue_ms: float = 0.0
    tokenize_ms: float = 0.0
    inference_ms: float = 0.0
    retrieve_ms: float = 0.0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    ttft_ms: float = 0.0
    tpot_ms: float = 0.0
    itl_p50_ms: float = 0.0
    itl_p99_ms: float = 0.0
    total_ms: float = 0.0
    cached_items: int = 0


@dataclass(frozen=True, slots=True)
class RequestFinished:
    """How one request ended; said once for each that was offered, refusals too.

    ``deadline_ms`` is its promise, counted from its arrival: to the first token where one is
    generated (``generated``), to the whole answer elsewhere; ``None`` where nothing was promised.
    ``predicted_ms`` is what admission foretold of the same time.
    """

    lane: str
    model: str
    outcome: RequestOutcome
    timing: Timing
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    code: str = ""
    form: str = ""
    generated: bool = False
    deadline_ms: float | None = None
    predicted_ms: float | None = None

    @property
    def answered_ms(self) -> float | None:
        """The time that the promise is about; ``None`` where it never came."""
        if self.generated:
            return self.timing.ttft_ms or None
        return self.timing.total_ms if self.outcome == "ok" else None

    @property
    def deadline_met(self) -> bool | None:
        """Whether the promise was kept; ``None`` where there was none, or the caller left early.

        A refusal, a failure and an exceeded limit break it. A caller that leaves before its
        deadline and before its first token has judged nothing.
        """
        if self.deadline_ms is None:
            return None
        came = self.answered_ms
        if self.outcome == "cancelled":
            if came is not None:
                return came <= self.deadline_ms
            return None if self.timing.total_ms <= self.deadline_ms else False
        return self.outcome == "ok" and came is not None and came <= self.deadline_ms


@dataclass(frozen=True, slots=True)
class BatchRun:
    model: str
    items: int
    tokens: int
    padded_tokens: int
    seconds: float
    failed: bool = False


@dataclass(frozen=True, slots=True)
class BatchBudgetChanged:
    """An encoder's batches may cost another number of tokens than before, and why."""

    model: str
    tokens: int
    full_tokens: int
    reason: str


@dataclass(frozen=True, slots=True)
class ModelStateChanged:
    model: str
    state: str
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class FormFellBack:
    """A form could not be made or loaded, and the reference form runs in its place."""

    model: str
    wanted: str
    used: str
    reason: str


@dataclass(frozen=True, slots=True)
class CandidateCompared:
    """A candidate ran (or was to run) beside the model in service; times exclude the queue.

    ``agreement`` is 1 where both said the same: cosine (embedders) or Kendall's tau (rerankers).
    """

    component: str
    candidate: str
    outcome: Literal["shadowed", "answered", "dropped", "failed"]
    primary_seconds: float | None = None
    candidate_seconds: float | None = None
    agreement: float | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingsLookedUp:
    """One request's distinct texts by where their vectors came from; ``joined`` another request."""

    model: str
    memory: int
    durable: int
    joined: int
    misses: int


@dataclass(frozen=True, slots=True)
class CacheTierChanged:
    """What an embedding cache's tier holds now, and what happened in it since the last such event."""

    tier: str
    on: bool
    entries: int
    bytes: int
    evicted: int = 0
    dropped: int = 0
    errors: int = 0


@dataclass(frozen=True, slots=True)
class DocumentIngested:
    collection: str
    source: str
    outcome: Literal["added", "updated", "unchanged", "failed", "deleted"]
    chunks: int = 0
    seconds: float = 0.0
    code: str = ""


@dataclass(frozen=True, slots=True)
class CitationsVerified:
    """How many quotes of an answer stood up, and how many were dropped."""

    verified: int
    dropped: int


Event = (
    RequestFinished
    | BatchRun
    | BatchBudgetChanged
    | ModelStateChanged
    | FormFellBack
    | CandidateCompared
    | EmbeddingsLookedUp
    | CacheTierChanged
    | DocumentIngested
    | CitationsVerified
    | PressureChanged
)


def counted_as(error: BaseException) -> tuple[RequestOutcome, str]:
    """Return how a request that ended with ``error`` is counted, and the error's code.

    A task that is cancelled and an iterator that is closed are a caller that left.
    """
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return OUTCOMES[Cancelled].counted, Cancelled.default_code
    code = error.code if isinstance(error, OndolError) else OndolError.default_code
    return outcome_of(error).counted, code


class Observer(Protocol):
    """Receives events; must be quick, must not raise, may be called from any thread."""

    def observe(self, event: Event) -> None: ...


class NullObserver:
    """Hears nothing."""

    def observe(self, event: Event) -> None:
        return None


class Observers:
    """Tells several observers; one that raises is logged and does not stop the others."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def observe(self, event: Event) -> None:
        for observer in self._observers:
            try:
                observer.observe(event)
            except Exception:
                logging.getLogger("ondol.observe").exception("observer %r failed", observer)


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """``time`` is when it ended, in Unix seconds; ``deadline_met`` is ``None`` without a promise."""

    time: float
    request_id: str
    lane: str
    model: str
    form: str
    outcome: RequestOutcome
    code: str
    generated: bool
    queue_ms: float
    tokenize_ms: float
    retrieve_ms: float
    inference_ms: float
    total_ms: float
    prefill_ms: float | None
    decode_ms: float | None
    ttft_ms: float | None
    tpot_ms: float | None
    itl_p50_ms: float | None
    itl_p99_ms: float | None
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    deadline_ms: float | None
    deadline_met: bool | None
    predicted_ms: float | None

    @property
    def tps(self) -> float | None:
        """Tokens generated per second of decoding."""
        if not self.decode_ms or not self.tokens_out:
            return None
        return self.tokens_out / self.decode_ms * 1e3


def record_of(event: RequestFinished, *, time: float) -> RequestRecord:
    """Return ``event`` as it is now; ``time`` is Unix seconds."""
    timing = event.timing
    return RequestRecord(
        time=time,
        request_id=timing.request_id,
        lane=event.lane,
        model=event.model,
        form=event.form,
        outcome=event.outcome,
        code=event.code,
        generated=event.generated,
        queue_ms=timing.queue_ms,
        tokenize_ms=timing.tokenize_ms,
        retrieve_ms=timing.retrieve_ms,
        inference_ms=timing.inference_ms,
        total_ms=timing.total_ms,
        prefill_ms=timing.prefill_ms or None,
        decode_ms=timing.decode_ms or None,
        ttft_ms=timing.ttft_ms or None,
        tpot_ms=timing.tpot_ms or None,
        itl_p50_ms=timing.itl_p50_ms or None,
        itl_p99_ms=timing.itl_p99_ms or None,
        tokens_in=event.tokens_in,
        tokens_out=event.tokens_out,
        tokens_cached=event.tokens_cached,
        deadline_ms=event.deadline_ms,
        deadline_met=event.deadline_met,
        predicted_ms=event.predicted_ms,
    )
