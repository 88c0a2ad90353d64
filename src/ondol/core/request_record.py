"""One finished request as a flat, frozen record: what is stored, summed up and written to logs.

Made the moment a request ends, because its ``Timing`` may live on. Times are milliseconds; ``None``
is what was not measured or did not happen. Holds codes, counts and times, never text.
"""

from __future__ import annotations

from dataclasses import dataclass

from ondol.core.errors import RequestOutcome
from ondol.core.observe import RequestFinished


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
