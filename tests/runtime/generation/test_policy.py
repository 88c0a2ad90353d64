"""The policies as pure functions: what they promise of any queue, and the order they give."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.runtime.generation.policy import (
    OWED_SECONDS,
    PASSED_OVER,
    Fifo,
    Policy,
    PolicyName,
    QueueState,
    ShortestFirst,
    Slo,
    WaitingRequest,
    policy_of,
)

NOW = 1000.0
POLICIES: list[Policy] = [Fifo(), ShortestFirst(), Slo(age_seconds=30.0)]

seconds = st.floats(0.001, 60.0)


@st.composite
def queues(draw: st.DrawFn) -> list[WaitingRequest]:
    size = draw(st.integers(0, 12))
    return [
        WaitingRequest(
            lane=draw(st.sampled_from(["chat", "search", "batch"])),
            arrived=NOW - draw(st.floats(0, 120.0)),
            sequence=sequence,
            prefill=draw(seconds),
            work=draw(seconds),
            deadline=draw(st.one_of(st.none(), st.floats(NOW - 60, NOW + 60))),
            refusable=draw(st.booleans()),
        )
        for sequence in draw(st.permutations(range(size)))
    ]


leads = st.dictionaries(st.sampled_from(["chat", "search", "batch"]), st.floats(0, 20.0))


@given(queue=queues(), lead=leads, passed=st.integers(0, 9), policy=st.sampled_from(POLICIES))
def test_every_request_stands_in_the_order_exactly_once(
    queue: list[WaitingRequest], lead: dict[str, float], passed: int, policy: Policy
) -> None:
    order = policy.order(queue, QueueState(NOW, lead, passed))
    assert sorted(order) == list(range(len(queue)))


@given(queue=queues(), policy=st.sampled_from(POLICIES))
def test_equal_requests_keep_the_order_they_came_in(
    queue: list[WaitingRequest], policy: Policy
) -> None:
    alike = [
        WaitingRequest("chat", NOW - 1, item.sequence, prefill=1, work=1, deadline=NOW + 9)
        for item in queue
    ]
    order = policy.order(alike, QueueState(NOW))
    assert [alike[i].sequence for i in order] == sorted(item.sequence for item in alike)


@given(queue=queues())
def test_only_hopeless_promises_lapse_and_nothing_without_a_deadline(
    queue: list[WaitingRequest],
) -> None:
    lapsed = set(Slo().lapsed(queue, NOW))
    for index, item in enumerate(queue):
        late = item.deadline is not None and NOW + item.prefill > item.deadline
        assert (index in lapsed) == (late and item.refusable)
    assert Fifo().lapsed(queue, NOW) == ShortestFirst().lapsed(queue, NOW) == []


@given(queue=queues(), lead=leads)
def test_the_order_does_not_depend_on_how_the_queue_is_kept(
    queue: list[WaitingRequest], lead: dict[str, float]
) -> None:
    there = [queue[i].sequence for i in Slo().order(queue, QueueState(NOW, lead))]
    back = queue[::-1]
    assert [back[i].sequence for i in Slo().order(back, QueueState(NOW, lead))] == there


def promised(work: float, slack: float, *, sequence: int = 0, lane: str = "chat") -> WaitingRequest:
    return WaitingRequest(lane, NOW, sequence, prefill=0.0, work=work, deadline=NOW + slack)


def free(work: float, waited: float, *, sequence: int = 0, lane: str = "chat") -> WaitingRequest:
    return WaitingRequest(lane, NOW - waited, sequence, work=work)


def first(queue: list[WaitingRequest], moment: QueueState, policy: Policy | None = None) -> int:
    return (policy or Slo(30.0)).order(queue, moment)[0]


def test_a_second_of_slack_counts_half_a_second_of_work() -> None:
    assert first([promised(1.0, 3.0), promised(1.4, 2.0)], QueueState(NOW)) == 1
    assert first([promised(1.0, 3.0), promised(1.6, 2.0)], QueueState(NOW)) == 0


def test_without_deadlines_the_highest_response_ratio_goes_first() -> None:
    assert first([free(10.0, 9.0), free(1.0, 1.0)], QueueState(NOW)) == 1
    assert first([free(10.0, 29.0), free(1.0, 1.0)], QueueState(NOW)) == 0


def test_promises_go_before_requests_without_one_until_those_are_aged() -> None:
    queue = [free(1.0, 29.0), promised(5.0, 60.0, sequence=1)]
    assert first(queue, QueueState(NOW, passed_over=PASSED_OVER)) == 1
    aged = [free(1.0, 31.0), promised(5.0, 60.0, sequence=1)]
    assert first(aged, QueueState(NOW, passed_over=PASSED_OVER - 1)) == 1
    assert first(aged, QueueState(NOW, passed_over=PASSED_OVER)) == 0


def test_the_oldest_of_the_aged_goes_first_whatever_its_size() -> None:
    queue = [free(1.0, 40.0, sequence=1), free(50.0, 50.0, sequence=0)]
    assert first(queue, QueueState(NOW)) == 1


def test_a_late_promise_that_is_not_refused_waits_like_one_without() -> None:
    late = WaitingRequest("chat", NOW - 5, 0, prefill=1, work=1, deadline=NOW, refusable=False)
    assert Slo().lapsed([late], NOW) == []
    assert first([late, promised(9.0, 9.0, sequence=1)], QueueState(NOW)) == 1


def test_a_lane_ahead_of_its_share_steps_back() -> None:
    queue = [promised(1.0, 2.0, lane="chat"), promised(2.0, 2.0, lane="search", sequence=1)]
    assert first(queue, QueueState(NOW, {"chat": 0.5})) == 0
    assert first(queue, QueueState(NOW, {"chat": 1.5})) == 1


def test_a_lane_without_deadlines_that_is_owed_goes_before_promises() -> None:
    queue = [promised(1.0, 2.0, lane="chat"), free(9.0, 1.0, lane="batch", sequence=1)]
    assert first(queue, QueueState(NOW, {"chat": OWED_SECONDS})) == 0
    assert first(queue, QueueState(NOW, {"chat": OWED_SECONDS + 0.1})) == 1


@pytest.mark.parametrize(("name", "kind"), [("fifo", Fifo), ("sjf", ShortestFirst), ("slo", Slo)])
def test_the_settings_name_the_policy(name: PolicyName, kind: Callable[..., Policy]) -> None:
    assert isinstance(policy_of(name, age_seconds=5.0), kind)  # type: ignore[arg-type]


def test_nobody_starves_under_lasting_overload() -> None:
    """Promises keep coming twice as fast as they are served; those without one all get through."""
    policy = Slo(age_seconds=30.0)
    queue = [free(5.0, 0.0, sequence=i, lane="chat") for i in range(5)]
    now, sequence, passed, served = NOW, 100, 0, 0
    for _ in range(400):
        queue += [
            WaitingRequest("chat", now, sequence + i, prefill=0.5, work=1.0, deadline=now + 2.0)
            for i in range(2)
        ]
        sequence += 2
        for index in sorted(policy.lapsed(queue, now), reverse=True):
            del queue[index]
        chosen = queue.pop(policy.order(queue, QueueState(now, passed_over=passed))[0])
        rest = any(item.deadline is None for item in queue)
        passed = passed + 1 if chosen.deadline is not None and rest else 0
        served += chosen.deadline is None
        now += chosen.work
    assert served == 5
