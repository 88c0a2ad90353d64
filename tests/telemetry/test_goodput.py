"""Promises kept, lane by lane, over windows that slide."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.core.clock import ManualClock
from ondol.core.errors import RequestOutcome
from ondol.core.events import RequestFinished, Timing
from ondol.core.settings.lane_sections import LANES
from ondol.telemetry.goodput import WINDOWS, Goodput, LaneFigures


def ended(
    outcome: RequestOutcome = "ok",
    *,
    ttft: float = 0.0,
    deadline: float | None = 2000.0,
    lane: str = "chat",
    total: float = 5000.0,
) -> RequestFinished:
    timing = Timing(ttft_ms=ttft, total_ms=total)
    return RequestFinished(lane, "m", outcome, timing, generated=True, deadline_ms=deadline)


def at(goodput: Goodput, window: str, lane: str = "chat") -> LaneFigures:
    return goodput.snapshot()[lane][window]


def test_shedding_cannot_flatter() -> None:
    clock = ManualClock(1000.0)
    goodput = Goodput(clock=clock)
    clock.advance(100)
    for event in [ended(ttft=500)] * 3 + [ended(ttft=2500)] + [ended("refused", total=1)] * 4:
        goodput.observe(event)
    figures = at(goodput, "1m")
    assert (figures.offered, figures.admitted, figures.rejected) == (8, 4, 4)
    assert (figures.completed, figures.promised, figures.kept) == (4, 8, 3)
    assert figures.attainment_offered == 3 / 8
    assert figures.sla_compliance_rate == 3 / 8
    assert figures.attainment_admitted == 3 / 4
    assert figures.goodput_rps == pytest.approx(3 / figures.seconds)
    assert figures.throughput_rps == pytest.approx(4 / figures.seconds)


def test_what_was_not_promised_or_not_judged_counts_neither_way() -> None:
    goodput = Goodput(clock=ManualClock(1000.0))
    goodput.observe(ended(ttft=9000, deadline=None))
    goodput.observe(ended("cancelled", total=300))
    figures = at(goodput, "1m")
    assert (figures.offered, figures.completed, figures.promised) == (2, 1, 0)
    assert figures.attainment_offered is None
    assert figures.attainment_admitted is None
    goodput.observe(ended("cancelled", ttft=400, total=300))
    assert at(goodput, "1m").attainment_offered == 1.0


def test_windows_slide_and_forget() -> None:
    clock = ManualClock(7200.0)
    goodput = Goodput(clock=clock)
    goodput.observe(ended("refused"))
    clock.advance(61)
    goodput.observe(ended(ttft=100))
    assert at(goodput, "1m").offered == 1
    assert at(goodput, "5m").offered == 2
    clock.advance(300)
    assert at(goodput, "5m").offered == 0
    assert at(goodput, "1h").offered == 2
    clock.advance(3600)
    assert at(goodput, "1h") == LaneFigures(seconds=at(goodput, "1h").seconds)


def test_rates_are_over_the_time_that_was_counted() -> None:
    clock = ManualClock(100_000.0)
    goodput = Goodput(clock=clock)
    clock.advance(30)
    for _ in range(60):
        goodput.observe(ended(ttft=100))
    assert at(goodput, "1m").throughput_rps == pytest.approx(2.0)
    assert at(goodput, "1h").throughput_rps == pytest.approx(1.0)  # one bucket of a minute at least
    clock.advance(7200)
    for name, window in WINDOWS.items():
        assert window * 59 / 60 <= at(goodput, name).seconds <= window


@given(st.lists(st.floats(1.0, 600_000.0), min_size=1, max_size=80))
def test_percentiles_are_right_within_five_percent(times: list[float]) -> None:
    goodput = Goodput(clock=ManualClock(10_000.0))
    for time in times:
        goodput.observe(ended(ttft=time))
    ranked = sorted(times)
    figures = at(goodput, "1h")
    for share, found in ((0.5, figures.ttft_p50_ms), (0.95, figures.ttft_p95_ms)):
        true = ranked[-(-int(share * 100) * len(ranked) // 100) - 1]
        assert found == pytest.approx(true, rel=0.0501)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ok", "refused", "failed", "cancelled", "deadline"]),
            st.sampled_from([0.0, 500.0, 5000.0]),
            st.sampled_from([None, 2000.0]),
            st.floats(0, 5),
        ),
        max_size=60,
    )
)
def test_the_sums_agree_whatever_comes(
    events: list[tuple[RequestOutcome, float, float | None, float]],
) -> None:
    clock = ManualClock(50_000.0)
    goodput = Goodput(clock=clock)
    for outcome, ttft, deadline, wait in events:
        clock.advance(wait)
        goodput.observe(ended(outcome, ttft=ttft, deadline=deadline))
    figures = at(goodput, "1h")
    assert figures.offered == len(events) == figures.admitted + figures.rejected
    assert figures.kept <= figures.promised <= figures.offered
    if figures.attainment_offered is not None and figures.attainment_admitted is not None:
        assert figures.attainment_offered <= figures.attainment_admitted


def test_every_lane_is_there_before_traffic_and_an_unknown_one_after() -> None:
    goodput = Goodput(clock=ManualClock())
    assert set(goodput.snapshot()) == set(LANES)
    assert set(goodput.snapshot()["chat"]) == {"1m", "5m", "1h"}
    goodput.observe(ended(lane="ask", ttft=1))
    assert goodput.snapshot()["ask"]["1m"].offered == 1
