"""The recorder: what it writes, what it drops, and that nobody waits for it."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ondol.app.store_assembly import open_documents
from ondol.core.clock import ManualClock, SystemClock
from ondol.core.errors import StoreError
from ondol.core.events import BatchRun, RequestFinished, RequestRecord, Timing
from ondol.telemetry.metric_rows import MetricStore
from ondol.telemetry.recorder import Recorder, RecorderStats, Retention

PATIENCE = 10.0


def finished(name: str, *, total_ms: float = 0.0) -> RequestFinished:
    timing = Timing(request_id=name, total_ms=total_ms)
    return RequestFinished("chat", "m", "ok", timing, tokens_in=3)


class Table:
    """Takes rows; ``hold`` keeps the writer inside ``write`` until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.hold = threading.Event()
        self.hold.set()
        self.entered = threading.Event()
        self.error: Exception | None = None

    def write(self, rows: Sequence[RequestRecord]) -> None:
        self.entered.set()
        assert self.hold.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        self.batches.append([row.request_id for row in rows])


def test_rows_come_out_in_order_and_close_writes_what_waits() -> None:
    table = Table()
    recorder = Recorder(table.write, clock=ManualClock(5.0))
    for name in ("a", "b", "c"):
        recorder.observe(finished(name))
    recorder.observe(BatchRun("m", items=1, tokens=1, padded_tokens=1, seconds=0.1))
    assert recorder.close()
    assert [name for batch in table.batches for name in batch] == ["a", "b", "c"]
    assert recorder.stats() == RecorderStats(written=3)


def test_a_record_is_what_was_true_when_the_request_ended() -> None:
    rows: list[RequestRecord] = []
    recorder = Recorder(rows.extend, clock=ManualClock(1_700_000_000.0))
    event = finished("a", total_ms=12.0)
    recorder.observe(event)
    event.timing.total_ms = 99.0
    recorder.close()
    assert rows[0].total_ms == 12.0
    assert rows[0].time == 1_700_000_000.0
    assert rows[0].ttft_ms is None


def test_what_does_not_fit_is_dropped_and_counted_and_nobody_waits() -> None:
    table = Table()
    table.hold.clear()
    recorder = Recorder(table.write, clock=ManualClock(), limit_rows=4, gather_seconds=0)
    recorder.observe(finished("first"))
    assert table.entered.wait(PATIENCE)
    for number in range(10):
        recorder.observe(finished(str(number)))
    assert recorder.stats() == RecorderStats(dropped=6, waiting=5)
    table.hold.set()
    assert recorder.close()
    assert recorder.stats() == RecorderStats(written=5, dropped=6)
    recorder.observe(finished("late"))
    assert recorder.stats().dropped == 7


def test_a_table_that_fails_costs_rows_and_one_line(caplog: pytest.LogCaptureFixture) -> None:
    table = Table()
    table.error = StoreError("it is damaged", hint="put a backup in its place")
    recorder = Recorder(table.write, clock=ManualClock(), gather_seconds=0)
    with caplog.at_level(logging.INFO, logger="ondol.recorder"):
        for number in range(3):
            recorder.observe(finished(str(number)))
            until(lambda: recorder.stats().waiting == 0)
        table.error = None
        recorder.observe(finished("again"))
        assert recorder.close()
    assert recorder.stats() == RecorderStats(written=1, failed=3)
    first, second = caplog.messages
    assert "it is damaged" in first
    assert "backup" in first
    assert "3 rows were lost" in second


def test_old_rows_are_thrown_out_in_steps_and_now_and_then() -> None:
    clock = ManualClock(1_000_000.0)
    asked: list[tuple[float, int]] = []
    left = [2000, 500, 0]

    def trim(*, before: float, keep: int) -> int:
        asked.append((before, keep))
        return left.pop(0) if left else 0

    table = Table()
    recorder = Recorder(
        table.write, clock=clock, trim=trim, retention=Retention(2, 10), gather_seconds=0
    )
    recorder.observe(finished("a"))
    until(lambda: len(asked) == 3)
    recorder.observe(finished("b"))
    until(lambda: recorder.stats().written == 2)
    assert len(asked) == 3
    clock.advance(61)
    recorder.observe(finished("c"))
    assert recorder.close()
    assert len(asked) == 4
    assert asked[0] == (1_000_000.0 - 2 * 86_400, 10)


def test_a_locked_and_a_closed_database_stop_no_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_documents(tmp_path, clock=SystemClock(), busy_seconds=0.05)
    other = sqlite3.connect(tmp_path / "ondol.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    recorder = Recorder(MetricStore(store.database).insert, clock=SystemClock(), gather_seconds=0)
    recorder.observe(finished("locked out"))
    until(lambda: recorder.stats().failed == 1)
    other.execute("ROLLBACK")
    other.close()
    recorder.observe(finished("kept"))
    until(lambda: recorder.stats().written == 1)
    [totals] = MetricStore(store.database).totals(since=0, until=1e12)
    assert totals.requests == 1
    store.close()
    recorder.observe(finished("too late"))
    assert recorder.close()
    assert recorder.stats() == RecorderStats(written=1, failed=2)
    assert sum("not recorded" in message for message in caplog.messages) == 2


def until(condition: Callable[[], bool]) -> None:
    """Return when ``condition`` holds; another thread is about to make it so."""
    waiting = threading.Condition()
    with waiting:
        for _ in range(1000):
            if condition():
                return
            waiting.wait(0.01)
    pytest.fail("it never came")
