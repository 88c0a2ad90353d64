"""The line a finished request leaves in the log."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from ondol.core.events import BatchRun, RequestFinished, Timing
from ondol.telemetry.logs import RequestLog, configure_logging


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """The server's log, as JSON."""
    stream = io.StringIO()
    configure_logging("info", stream=stream)
    yield stream
    for name in ("ondol", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


def test_one_line_with_codes_counts_and_times(log: io.StringIO) -> None:
    timing = Timing(request_id="req-1", queue_ms=12.34, ttft_ms=512.0, total_ms=1840.06)
    RequestLog().observe(
        RequestFinished(
            "chat", "qwen", "ok", timing, tokens_in=90, tokens_out=40, tokens_cached=60,
            form="llamacpp:q4_k_m", generated=True, deadline_ms=2000, predicted_ms=480.0,
        )
    )  # fmt: skip
    RequestLog().observe(BatchRun("m", items=1, tokens=1, padded_tokens=1, seconds=0.1))
    [line] = log.getvalue().splitlines()
    found = json.loads(line)
    assert list(found)[:4] == ["time", "level", "logger", "message"]
    assert {key: found[key] for key in ("level", "logger", "message")} == {
        "level": "info",
        "logger": "ondol.request",
        "message": "chat ok after 1840 ms",
    }
    del found["time"], found["level"], found["logger"], found["message"]
    assert found == {
        "request_id": "req-1",
        "lane": "chat",
        "model": "qwen",
        "form": "llamacpp:q4_k_m",
        "outcome": "ok",
        "total_ms": 1840.1,
        "queue_ms": 12.3,
        "ttft_ms": 512.0,
        "tokens_in": 90,
        "tokens_out": 40,
        "tokens_cached": 60,
        "deadline_ms": 2000,
        "predicted_ms": 480.0,
        "deadline_met": True,
    }


def test_a_refusal_says_why(log: io.StringIO) -> None:
    event = RequestFinished(
        "chat", "m", "refused", Timing(request_id="r"), code="shed", deadline_ms=2000.0
    )
    RequestLog().observe(event)
    found = json.loads(log.getvalue())
    assert (found["outcome"], found["code"], found["deadline_met"]) == ("refused", "shed", False)
    assert "ttft_ms" not in found


def test_nothing_is_written_above_info(log: io.StringIO) -> None:
    logging.getLogger("ondol").setLevel(logging.WARNING)
    RequestLog().observe(RequestFinished("chat", "m", "ok", Timing()))
    assert log.getvalue() == ""


def test_extras_do_not_hide_the_first_keys_and_lines_are_always_json(log: io.StringIO) -> None:
    logging.getLogger("ondol.x").info(
        "hello", extra={"time": "never", "level": "odd", "logger": "other", "share": float("nan")}
    )
    found = json.loads(log.getvalue(), parse_constant=lambda word: pytest.fail(word))
    assert (found["level"], found["logger"], found["share"]) == ("info", "ondol.x", None)
    assert found["time"] != "never"
