"""``ondol metrics summary`` over rows that were really written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.cli.conftest import Run

from ondol.app.store_assembly import open_documents
from ondol.core.clock import SystemClock
from ondol.core.events import RequestFinished, Timing, record_of
from ondol.telemetry.metric_rows import MetricStore


@pytest.fixture
def kept() -> None:
    """Two chats in time, one late, one refused and an embedding, now; and one chat of yesterday."""
    now = SystemClock().wall() - 1
    events = [
        RequestFinished(
            "chat", "qwen", "ok", Timing(ttft_ms=ttft, tpot_ms=40.0, total_ms=5000.0, prefill_ms=1),
            tokens_in=100, tokens_out=20, tokens_cached=50, generated=True, deadline_ms=2000.0,
        )
        for ttft in (300.0, 500.0, 2500.0)
    ]  # fmt: skip
    events.append(
        RequestFinished("chat", "qwen", "refused", Timing(), code="shed", deadline_ms=2000.0)
    )
    events.append(RequestFinished("embeddings", "e5", "ok", Timing(total_ms=8.0), tokens_in=6))
    with open_documents(Path(os.environ["ONDOL_HOME"]), clock=SystemClock()) as store:
        MetricStore(store.database).insert([record_of(event, time=now) for event in events])
        MetricStore(store.database).insert([record_of(events[0], time=now - 86_400)])


def test_the_summary_counts_refusals_as_broken_promises(kept: None, run: Run) -> None:
    found = run("metrics", "summary", "--json").data
    total = found["total"]
    assert (total["offered"], total["admitted"], total["completed"], total["rejected"]) == (
        5, 4, 4, 1,
    )  # fmt: skip
    assert total["attainment_offered"] == total["sla_compliance_rate"] == 0.5
    assert total["attainment_admitted"] == pytest.approx(2 / 3)
    assert total["throughput_rps"] == pytest.approx(4 / 3600)
    assert total["goodput_rps"] == pytest.approx(2 / 3600)
    assert (total["ttft_p50_ms"], total["ttft_p95_ms"], total["tpot_p50_ms"]) == (500, 2500, 40)
    assert total["cached_share"] == 0.5
    assert found["groups"] == []
    assert found["refusals"] == {"shed": 1}
    assert run("metrics", "summary", "--since", "2d", "--json").data["total"]["offered"] == 6


@pytest.mark.parametrize(
    ("by", "groups"), [("lane", ["chat", "embeddings"]), ("model", ["e5", "qwen"])]
)
def test_groups(kept: None, run: Run, by: str, groups: list[str]) -> None:
    found = run("metrics", "summary", "--by", by, "--json").data
    assert [row["group"] for row in found["groups"]] == groups
    shown = run("metrics", "summary", "--by", by).out.splitlines()
    assert shown[0].split()[:2] == [by.upper(), "OFFERED"]
    assert [line.split()[0] for line in shown[1:-1]] == [*groups, "all"]
    assert shown[-1] == "refused: shed 1"


def test_hours_are_rated_over_their_part_of_the_period(kept: None, run: Run) -> None:
    found = run("metrics", "summary", "--since", "2d", "--by", "hour", "--json").data
    assert sum(row["offered"] for row in found["groups"]) == 6
    assert all(0 < row["seconds"] <= 3600 for row in found["groups"])
    assert ":00" in run("metrics", "summary", "--since", "2d", "--by", "hour").out


def test_nothing_recorded_is_said(run: Run) -> None:
    empty = run("metrics", "summary")
    assert (empty.code, empty.out) == (0, "")
    assert "telemetry.record" in empty.err
    assert run("metrics", "summary", "--json").data["total"] is None


@pytest.mark.parametrize("period", ["1", "0s", "-1h", "1w", "h", "1h30m", "nan"])
def test_a_period_that_is_none_is_refused(run: Run, period: str) -> None:
    refused = run("metrics", "summary", f"--since={period}")
    assert refused.code == 2
    assert "30m" in refused.err
