"""What is decided without doing anything: fates, turns, courtesy, pace."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondol.core.errors import (
    OUTCOMES,
    BackendError,
    DeadlineExceeded,
    GeneratorDied,
    InvalidInput,
    NotReady,
    OfflineMissing,
    OndolError,
    Overloaded,
    Refused,
    StoreError,
)
from ondol.core.settings.operation_sections import JobSettings
from ondol.jobs.attempt import LONGEST_SECONDS, AttemptOver, RetryLater, RetryNow, Verdict, judge
from ondol.jobs.job_results import PACE_ITEMS, rate_of
from ondol.jobs.job_rows import ItemLease, OpenJob
from ondol.jobs.job_throttle import CALM_SECONDS, QUIET_SECONDS, JobThrottle, in_turn, share_of

SETTINGS = JobSettings(attempts=4, backoff_seconds=2.0, patience_seconds=3600.0)


def fate(
    error: Exception,
    *,
    attempts: int = 0,
    refused_since: float | None = None,
    now: float = 0.0,
    streak: int = 0,
    chance: float = 0.0,
    rules: JobSettings = SETTINGS,
) -> Verdict:
    lease = ItemLease("j", 0, "i", "t", "", "{}", "token", 60.0, attempts, 0, refused_since)
    return judge(error, lease, settings=rules, now=now, streak=streak, chance=lambda: chance)


@pytest.mark.parametrize(
    "error", [BackendError("x"), GeneratorDied("x"), DeadlineExceeded("x"), StoreError("x")]
)
def test_what_may_pass_is_tried_again_with_growing_waits(error: Exception) -> None:
    waits = []
    for attempts in range(3):
        verdict = fate(error, attempts=attempts)
        assert isinstance(verdict, RetryNow)
        waits.append(verdict.seconds)
    assert waits == [1.0, 2.0, 4.0]
    assert isinstance(fate(error, attempts=3), AttemptOver)


@pytest.mark.parametrize(
    "error", [DeadlineExceeded("it took longer than 600 s", code="task_timeout"), TimeoutError()]
)
def test_what_used_up_its_time_is_tried_once_more_only(error: Exception) -> None:
    assert isinstance(fate(error), RetryNow)
    assert isinstance(fate(error, attempts=1), AttemptOver)
    assert isinstance(fate(error, rules=JobSettings(attempts=1)), AttemptOver)


@pytest.mark.parametrize(
    "error", [InvalidInput("x"), OfflineMissing("x"), KeyError("x"), OndolError("x")]
)
def test_what_cannot_succeed_is_over_at_once(error: Exception) -> None:
    assert isinstance(fate(error), AttemptOver)


def test_an_unexpected_error_tells_its_kind_and_nothing_of_the_inside() -> None:
    verdict = fate(KeyError("a secret"))
    assert isinstance(verdict, AttemptOver)
    assert verdict.error.code == "internal"
    assert "KeyError" in verdict.error.message
    assert "secret" not in verdict.error.message


def test_a_refusal_waits_as_told_or_longer_the_more_often_it_happens() -> None:
    assert fate(Overloaded("x", retry_after=9)) == RetryLater(9.0)
    assert fate(Overloaded("x", retry_after=9), streak=4) == RetryLater(32.0)
    assert fate(Overloaded("x", retry_after=9), chance=1.0) == RetryLater(9 * 1.25)
    assert fate(NotReady("x", retry_after=float("inf"))) == RetryLater(LONGEST_SECONDS)
    assert fate(Overloaded("x", retry_after=1), attempts=99) == RetryLater(2.0)
    worn = fate(Overloaded("x", retry_after=1), refused_since=0.0, now=3600.0)
    assert isinstance(worn, AttemptOver)
    assert worn.error.code == "overloaded"


@settings(max_examples=60)
@given(
    kind=st.sampled_from(sorted(OUTCOMES, key=lambda kind: kind.__name__)),
    attempts=st.integers(0, 60),
    streak=st.integers(0, 5000),
    chance=st.floats(0, 1, exclude_max=True),
    retry_after=st.floats(0, 1e9),
)
def test_every_error_has_a_bounded_fate(
    kind: type[OndolError], attempts: int, streak: int, chance: float, retry_after: float
) -> None:
    error = kind("x", retry_after=retry_after) if issubclass(kind, Refused) else kind("x")
    verdict = fate(error, attempts=attempts, streak=streak, chance=chance)
    if isinstance(verdict, AttemptOver):
        assert verdict.error.code
    else:
        assert 0 < verdict.seconds <= 1.25 * LONGEST_SECONDS
        assert isinstance(verdict, RetryLater) or attempts + 1 < SETTINGS.attempts


def job(
    name: str, tenant: str = "", priority: int = 0, created: float = 0.0, leased: int = 0
) -> OpenJob:
    return OpenJob(name, tenant, priority, created, leased)


def order(*jobs: OpenJob, turns: dict[str, int] | None = None, now: float = 100.0) -> str:
    return " ".join(j.id for j in in_turn(jobs, turns or {}, now=now, age_seconds=10.0))


def test_whose_turn_it_is() -> None:
    assert order(job("a", "x", leased=2), job("b", "y", leased=1)) == "b a"
    assert order(job("a", "x"), job("b", "y"), turns={"x": 2, "y": 1}) == "b a"
    assert order(job("a", "x"), job("b", "y"), turns={"x": 1}) == "b a"
    assert order(job("old"), job("new", created=50.0)) == "old new"
    assert order(job("old"), job("urgent", created=50.0, priority=6)) == "urgent old"
    assert order(job("aged"), job("urgent", created=99.0, priority=6)) == "aged urgent"
    assert share_of(4, [job("a", "x"), job("b", "x")]) == 4
    assert share_of(4, [job("a", "x"), job("b", "y")]) == 2
    assert share_of(1, [job("a", "x"), job("b", "y")]) == 1


@settings(max_examples=40)
@given(
    jobs=st.lists(
        st.builds(
            OpenJob,
            id=st.uuids().map(str),
            tenant=st.sampled_from("xyz"),
            priority=st.integers(-100, 100),
            created=st.floats(0, 1e6),
            leased=st.integers(0, 9),
        ),
        max_size=8,
    ),
    now=st.floats(1e6, 1e9),
)
def test_waiting_never_loses_against_who_came_later_with_the_same_priority(
    jobs: list[OpenJob], now: float
) -> None:
    found = in_turn(jobs, {}, now=now, age_seconds=600.0)
    assert sorted(j.id for j in found) == sorted(j.id for j in jobs)
    for first, later in itertools.pairwise(found):
        if (first.tenant, first.priority) == (later.tenant, later.priority):
            assert first.created <= later.created


def test_courtesy_holds_back_then_lets_one_through() -> None:
    courtesy = JobThrottle(30.0)
    last_seen = float("-inf")

    def places(now: float, *, busy: bool, running: int = 0) -> int:
        nonlocal last_seen
        last_seen = now if busy else last_seen
        return courtesy.places(free=4 - running, running=running, last_seen=last_seen, now=now)

    assert places(0, busy=False) == 4
    assert places(1, busy=True) == 0
    assert places(30, busy=True) == 0
    assert places(31, busy=True) == 1
    assert places(32, busy=True, running=1) == 0
    assert places(33, busy=False) == 0  # another question may come
    assert places(40, busy=True) == 0
    assert places(61, busy=True) == 0
    assert places(62, busy=True) == 1  # so long after the item that ran
    assert places(62 + CALM_SECONDS, busy=False) == 1
    assert places(62 + CALM_SECONDS, busy=False, running=1) == 0
    assert places(62 + QUIET_SECONDS, busy=False, running=1) == 3
    assert places(100, busy=True) == 0
    assert JobThrottle(0.0).places(free=4, running=0, last_seen=0, now=0) == 4


def test_the_pace_is_of_the_last_items_and_of_the_time_somebody_worked() -> None:
    assert rate_of(0, 5.0, since=0.0, now=9.0) is None
    assert rate_of(4, 5.0, since=1.0, now=9.0) == 0.5
    assert rate_of(PACE_ITEMS, 5.0, since=1.0, now=5.0 + PACE_ITEMS - 1) == 1.0
    assert rate_of(1, 5.0, since=9.0, now=9.0) == 1000.0
