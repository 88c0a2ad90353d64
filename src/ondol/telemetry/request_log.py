"""One log line for every finished request: codes, counts and times, never text.

At level info, by the logger ``ondol.request``; what was not measured is left out of the line.
"""

from __future__ import annotations

import logging

from ondol.core.observe import Event, RequestFinished

_log = logging.getLogger("ondol.request")

_TIMES = (
    *("queue_ms", "tokenize_ms", "retrieve_ms", "inference_ms", "prefill_ms", "decode_ms"),
    *("ttft_ms", "tpot_ms", "itl_p50_ms", "itl_p99_ms"),
)
_COUNTS = ("tokens_in", "tokens_out", "tokens_cached")


class RequestLog:
    """An ``Observer`` of finished requests that writes them to the log."""

    def observe(self, event: Event) -> None:
        if isinstance(event, RequestFinished) and _log.isEnabledFor(logging.INFO):
            _log.info(
                "%s %s after %.0f ms", event.lane, event.outcome, event.timing.total_ms,
                extra=_fields(event),
            )  # fmt: skip


def _fields(event: RequestFinished) -> dict[str, object]:
    timing = event.timing
    fields: dict[str, object] = {
        "request_id": timing.request_id,
        "lane": event.lane,
        "model": event.model,
        "form": event.form,
        "outcome": event.outcome,
        "code": event.code,
        "total_ms": round(timing.total_ms, 1),
    }
    fields |= {name: round(getattr(timing, name), 1) for name in _TIMES}
    fields |= {name: getattr(event, name) for name in _COUNTS}
    measured = {name: value for name, value in fields.items() if value}
    for name in ("deadline_ms", "predicted_ms"):
        milliseconds: float | None = getattr(event, name)
        if milliseconds is not None:
            measured[name] = round(milliseconds, 1)
    met = event.deadline_met
    return measured if met is None else {**measured, "deadline_met": met}
