"""The figures: who counts, from when, and how sure they are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ondol.lab.bench.load_figures import Promise, Refusal, Seen, figures, intervals
from ondol.lab.bench.request_trace import Row

OK = Seen(Row(0, 50, 11), 1.0, 0.0, 1.5, 2.5, 2.6, "ok", 200, completion_tokens=11)
NO = replace(
    OK, first=None, last=None, end=1.01, outcome="refused", status=429, completion_tokens=0
)
PROMISE = Promise(sla_ms=1000, seed=1, resamples=200)


def refused(begun: float, head: float, *, retry_after: float | None = 1.0) -> Seen:
    return replace(NO, refusals=(Refusal(429, "overloaded", retry_after, begun, head),))


def test_refusals_and_errors_are_in_the_denominator_of_offered() -> None:
    late = replace(OK, first=2.5)
    broken = replace(OK, outcome="failed")
    left = replace(OK, outcome="left")
    found = figures([OK, late, broken, refused(1.0, 1.004), left], PROMISE)
    assert (found["offered"], found["completed"], found["rejected"], found["failed"]) == (
        5,
        2,
        1,
        1,
    )
    assert found["met"] == 1
    assert found["attainment_offered"] == 1 / 4
    assert found["attainment_admitted"] == 1 / 3
    assert found["goodput_rps"] == pytest.approx(1 / 1.6)


def test_times_count_from_the_schedule_not_from_the_send() -> None:
    late = replace(OK, at=0.0, late=0.9)
    found = figures([late], PROMISE)
    assert found["ttft_p50_ms"] == pytest.approx(1500)
    assert found["attainment_offered"] == 0
    assert found["lateness_max_ms"] == pytest.approx(900)
    told = figures([refused(1.5, 1.504)], PROMISE)
    assert told["refusal_p99_ms"] == pytest.approx(504)
    assert told["refusal_p99_from_send_ms"] == pytest.approx(4)


def test_tokens_after_the_first_make_the_time_per_token() -> None:
    found = figures([OK], PROMISE)
    assert found["tpot_p50_ms"] == pytest.approx(100)
    assert found["completion_tokens_got"] == 11
    assert found["completion_tokens_wanted"] == 11


def test_the_longest_wait_is_anyones() -> None:
    stuck = replace(NO, at=1.0, end=9.0, outcome="timeout")
    assert figures([OK, refused(1, 1.1), stuck], PROMISE)["max_wait_ms"] == pytest.approx(8000)


def test_sizes_have_their_own_percentiles() -> None:
    seen = [replace(OK, row=Row(0, 10 * n, 1), first=1.0 + n / 10) for n in range(1, 21)]
    found = figures(seen, PROMISE)["by_size"]
    assert found["short_half"]["ttft_p50_ms"] == pytest.approx(550)
    assert found["short_half"]["prompt_tokens_to"] == 100
    longest = found["deciles"][-1]
    assert (longest["offered"], longest["prompt_tokens_from"]) == (2, 190)
    assert longest["ttft_p99_ms"] == pytest.approx(1999)
    assert len(found["deciles"]) == 10


def test_intervals_hold_the_figure_shrink_with_more_and_repeat() -> None:
    def run(count: int) -> list[Seen]:
        return [replace(OK, at=n, first=n + (0.5 if n % 2 else 1.5)) for n in range(count)]

    few, many = intervals(run(40), PROMISE), intervals(run(1000), PROMISE)
    for found in (few, many):
        low, high = found["attainment_offered"]
        assert 0 <= low <= 0.5 <= high <= 1
    width = [
        found["attainment_offered"][1] - found["attainment_offered"][0] for found in (few, many)
    ]
    assert width[1] < width[0]
    assert few == intervals(run(40), PROMISE)
    assert few != intervals(run(40), replace(PROMISE, seed=2))


def test_neighbours_that_fail_together_make_the_interval_wider() -> None:
    def run(length: int) -> list[Seen]:
        return [replace(OK, at=n, first=n + (0.5 if n // length % 2 else 1.5)) for n in range(400)]

    def width(seen: list[Seen]) -> float:
        low, high = intervals(seen, PROMISE)["attainment_offered"]
        return high - low

    assert width(run(40)) > 1.5 * width(run(1))


def test_nothing_seen_is_no_figure_and_no_crash() -> None:
    found = figures([], PROMISE)
    assert (found["offered"], found["attainment_offered"], found["max_wait_ms"]) == (0, 0, 0)
    assert figures([refused(1, 1.1)], PROMISE)["ttft_p99_ms"] == 0
