"""Rows of finished requests: kept, summed up by group, thrown out when old or too many."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ondol.app.store_assembly import open_documents
from ondol.core.clock import ManualClock
from ondol.core.events import RequestFinished, RequestRecord, Timing, record_of
from ondol.store import document_tables
from ondol.store.documents import DocumentStore
from ondol.telemetry.metric_rows import MetricStore

NOW = 1_700_000_000.0
HOUR = 3600.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DocumentStore]:
    with open_documents(tmp_path, clock=ManualClock(NOW)) as opened:
        yield opened


def record(time: float = NOW, **fields: Any) -> RequestRecord:
    """A finished generation of 10 + 5 tokens, unless said otherwise."""
    names = set(Timing.__dataclass_fields__)
    timing = Timing(**{key: fields.pop(key) for key in list(fields) if key in names})
    given: dict[str, Any] = {
        "lane": "chat", "model": "m", "outcome": "ok", "tokens_in": 10, "tokens_out": 5,
        "generated": True, **fields,
    }  # fmt: skip
    return record_of(RequestFinished(timing=timing, **given), time=time)


def raw(store: DocumentStore, home: Path, table: str) -> list[dict[str, Any]]:
    connection = sqlite3.connect(home / "ondol.db")
    connection.row_factory = sqlite3.Row
    rows = [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY id")]
    connection.close()
    return rows


def test_every_request_has_a_row_and_a_generation_a_second(
    store: DocumentStore, tmp_path: Path
) -> None:
    MetricStore(store.database).insert(
        [
            record(
                request_id="g", form="llamacpp:q4_k_m", queue_ms=5.0, prefill_ms=100.0,
                decode_ms=250.0, ttft_ms=120.0, tpot_ms=50.0, total_ms=380.0, tokens_cached=4,
                deadline_ms=2000.0, predicted_ms=110.0,
            ),
            record(request_id="r", outcome="refused", code="shed", tokens_in=0, tokens_out=0),
            record(request_id="e", lane="embeddings", generated=False, total_ms=7.0),
        ]
    )  # fmt: skip
    every = raw(store, tmp_path, "analysis_metrics")
    assert [row["request_id"] for row in every] == ["g", "r", "e"]
    assert (every[0]["deadline_met"], every[1]["deadline_met"]) == (1, None)
    assert every[1]["code"] == "shed"
    [generation] = raw(store, tmp_path, "generation_metrics")
    assert generation["id"] == every[0]["id"]
    assert {
        "prefill_time_ms": 100.0, "decode_time_ms": 250.0, "ttft_ms": 120.0, "tps": 20.0,
        "tpot_ms": 50.0, "itl_p50_ms": None, "prompt_tokens": 10, "completion_tokens": 5,
        "cached_tokens": 4, "lane": "chat", "form": "llamacpp:q4_k_m", "predicted_ms": 110.0,
    }.items() <= generation.items()  # fmt: skip


def test_totals_are_of_the_period_and_by_group(store: DocumentStore) -> None:
    MetricStore(store.database).insert(
        [
            record(NOW - 2 * HOUR, lane="batch"),
            record(NOW - HOUR, ttft_ms=100.0, deadline_ms=2000.0, total_ms=500.0, tokens_cached=8),
            record(NOW - 2, ttft_ms=3000.0, deadline_ms=2000.0, total_ms=3500.0),
            record(NOW - 1, outcome="refused", code="overloaded", deadline_ms=2000.0),
            record(NOW - 1, lane="search", outcome="failed", code="backend_failed", model="n"),
            record(NOW),
        ]
    )
    [total] = MetricStore(store.database).totals(since=NOW - HOUR, until=NOW)
    assert (total.requests, total.ok, total.refused, total.failed) == (4, 2, 1, 1)
    assert (total.promised, total.promised_admitted, total.kept) == (3, 2, 1)
    assert (total.prompt_tokens, total.cached_tokens) == (40, 8)
    assert total.percentiles["ttft_ms"].p50 == 100.0
    assert total.percentiles["ttft_ms"].p95 == 3000.0
    lanes = MetricStore(store.database).totals(since=NOW - HOUR, until=NOW, by="lane")
    assert [(row.key, row.requests) for row in lanes] == [("chat", 3), ("search", 1)]
    assert "ttft_ms" not in lanes[1].percentiles
    models = MetricStore(store.database).totals(since=0, until=NOW + 1, by="model")
    assert [(row.key, row.requests) for row in models] == [("m", 5), ("n", 1)]
    hours = MetricStore(store.database).totals(since=0, until=NOW + 1, by="hour")
    assert all(isinstance(row.key, int) and row.key % 3600 == 0 for row in hours)
    assert sum(row.requests for row in hours) == 6
    assert MetricStore(store.database).refusals(since=NOW - HOUR, until=NOW) == {"overloaded": 1}
    assert MetricStore(store.database).totals(since=0, until=1) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=60))
def test_percentiles_are_the_nearest_rank(tmp_path: Path, times: list[float]) -> None:
    with open_documents(tmp_path, clock=ManualClock(NOW)) as store:
        MetricStore(store.database).trim(before=1e18, keep=1, at_most=1000)
        MetricStore(store.database).insert([record(ttft_ms=time) for time in times])
        [total] = MetricStore(store.database).totals(since=0, until=1e18)
        found = total.percentiles["ttft_ms"]
        ranked = sorted(times)
        for percent, value in ((50, found.p50), (95, found.p95), (99, found.p99)):
            assert value == ranked[math.ceil(percent * len(ranked) / 100) - 1]


def test_what_is_old_or_too_much_goes_in_steps(store: DocumentStore, tmp_path: Path) -> None:
    MetricStore(store.database).insert(
        [record(NOW - 100 + n, ttft_ms=1.0, request_id=str(n)) for n in range(50)]
    )
    assert MetricStore(store.database).trim(before=0, keep=50) == 0
    assert MetricStore(store.database).trim(before=0, keep=30, at_most=15) == 15
    assert MetricStore(store.database).trim(before=0, keep=30, at_most=15) == 5
    assert MetricStore(store.database).trim(before=0, keep=30, at_most=15) == 0
    assert MetricStore(store.database).trim(before=NOW - 60, keep=30) == 20
    left = [row["request_id"] for row in raw(store, tmp_path, "analysis_metrics")]
    assert left == [str(n) for n in range(40, 50)]
    assert len(raw(store, tmp_path, "generation_metrics")) == 10
    assert MetricStore(store.database).trim(before=NOW, keep=30) == 10
    MetricStore(store.database).insert([record(request_id="next", ttft_ms=1.0)])
    [row] = raw(store, tmp_path, "analysis_metrics")
    assert row["id"] == 51  # ids are not used twice, so that the lowest is the oldest


def test_a_home_of_the_first_version_gains_the_tables(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "ondol.db", isolation_level=None)
    for statement in document_tables.MIGRATIONS[0].statements:
        connection.execute(statement)
    connection.execute("PRAGMA user_version = 1")
    connection.execute(f"PRAGMA application_id = {0x4F4E444C}")
    connection.execute(
        "INSERT INTO collections(name, embedder, dimensions, created, metadata, stamp) "
        "VALUES ('kept', 'e5', 8, 0, '{}', 's')"
    )
    connection.close()
    with open_documents(tmp_path, clock=ManualClock(NOW)) as store:
        assert [collection.name for collection in store.collections()] == ["kept"]
        MetricStore(store.database).insert([record()])
        assert len(MetricStore(store.database).totals(since=0, until=NOW + 1)) == 1
