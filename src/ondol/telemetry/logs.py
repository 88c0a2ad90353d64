"""Log lines: readable on a terminal, JSON everywhere else; each carries its request's id.

Owns the ``ondol`` logger tree's handler and the request id of the current context. Lines name
codes, counts and times; they never hold a prompt, a document or a key.

One log line for every finished request: codes, counts and times, never text.

At level info, by the logger ``ondol.request``; what was not measured is left out of the line.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal, TextIO

from ondol.core.events import Event, RequestFinished

Level = Literal["debug", "info", "warning", "error"]

request_id: ContextVar[str] = ContextVar("ondol_request_id", default="")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time level logger message request_id`` and the record's extras.

    An extra never takes the place of the first four; a number that JSON does not know is null.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, tz=UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request := _request_of(record):
            line["request_id"] = request
        extras = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        line = line | {key: _finite(value) for key, value in extras.items()} | line
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """``12:00:01 warning ondol.server: message [request id]`` for people."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        request = _request_of(record)
        line = f"{time} {record.levelname.lower()} {record.name}: {record.getMessage()}"
        if request:
            line += f" [{request}]"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _request_of(record: logging.LogRecord) -> str:
    """Return the id the record names, else that of the context it was made in."""
    named: object = getattr(record, "request_id", "")
    return str(named) if named else request_id.get()


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def configure_logging(
    level: Level, *, stream: TextIO | None = None, as_json: bool | None = None
) -> None:
    """Send the ``ondol`` loggers to ``stream`` (stderr), as JSON unless it is a terminal.

    Warnings of the HTTP server's library go the same way. Replaces handlers that an earlier call
    put there; leaves the root logger alone.
    """
    target = stream or sys.stderr
    json_lines = not target.isatty() if as_json is None else as_json
    handler = logging.StreamHandler(target)
    handler.setFormatter(JsonFormatter() if json_lines else TextFormatter())
    for name, least in (("ondol", level.upper()), ("uvicorn", "WARNING")):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(least)
        logger.propagate = False


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
