"""Jobs in the store: what is taken, ended, lost, cancelled, read and removed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.jobs.job_builders import NOW, hand_in, ids, items, open_jobs_store, take

from ondol.core.errors import Conflict, InvalidInput, NotFound, Overloaded
from ondol.jobs.job_rows import ItemError, NewJob
from ondol.jobs.job_store import JobStore

BROKEN = ItemError("backend_error", "broke")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    database, store = open_jobs_store(tmp_path)
    yield store
    database.close()


def finish(store: JobStore, job: str, **result: object) -> None:
    (lease,) = take(store, job)
    assert store.finish(lease, json.dumps({"result": result}), now=NOW + 1)


def test_items_are_taken_in_prefix_order_and_none_twice(store: JobStore) -> None:
    job = hand_in(store, "j", "b1", "a1", "b2", "a2")
    assert ids(take(store, job, 3)) == ["i1", "i3", "i0"]
    assert ids(take(store, job, 3)) == ["i2"]
    assert take(store, job, 3) == []
    assert store.get(job).state == "running"


def test_equal_items_are_worked_once_and_both_have_the_result(store: JobStore) -> None:
    job = hand_in(store, "j", "a", "b", "a", "a")
    assert ids(first := take(store, job, 9)) == ["i0", "i1"]
    assert store.finish(first[0], '{"result": {"x": 1}}', now=NOW)
    found = store.results(job)
    assert [(r.id, r.result, r.same_as) for r in found] == [
        ("i0", '{"result": {"x": 1}}', None),
        ("i2", '{"result": {"x": 1}}', 0),
        ("i3", '{"result": {"x": 1}}', 0),
    ]
    assert store.fail(first[1], BROKEN, now=NOW)
    assert store.get(job).state == "done"


def test_a_result_is_taken_once_and_only_with_the_lease_that_holds(store: JobStore) -> None:
    job = hand_in(store, "j", "a")
    (late,) = take(store, job)
    assert store.reclaim(now=NOW + 59, crashes=5) == 0
    assert store.renew([late], until=NOW + 70) == {late.token}
    assert store.reclaim(now=NOW + 71, crashes=5) == 1
    (now,) = take(store, job, now=NOW + 71)
    assert now.losses == 1
    assert store.renew([late, now], until=NOW + 99) == {now.token}
    assert not store.finish(late, '{"result": {"by": "late"}}', now=NOW)
    assert not store.fail(late, BROKEN, now=NOW)
    assert store.give_back([late]) == 0
    assert store.finish(now, '{"result": {"by": "now"}}', now=NOW)
    assert not store.finish(now, '{"result": {"by": "again"}}', now=NOW)
    assert store.results(job)[0].result == '{"result": {"by": "now"}}'


def test_an_item_that_was_lost_twice_goes_last_and_alone_and_then_is_given_up(
    store: JobStore,
) -> None:
    job = hand_in(store, "j", "a", "b")
    for _ in range(2):
        (lease,) = take(store, job)
        assert lease.id == "i0"
        store.reclaim(now=NOW, crashes=3, everything=True)
    assert ids(take(store, job, 9)) == ["i1"]
    (suspect,) = store.claim(job, limit=9, now=NOW, seconds=60, suspects=True)
    assert (suspect.id, suspect.losses) == ("i0", 2)
    store.reclaim(now=NOW, crashes=3, everything=True)
    assert store.tallies([job])[job].errors == {"worker_died": 1}
    (left,) = take(store, job, 9)
    assert store.finish(left, '{"result": {}}', now=NOW)
    assert store.get(job).state == "done"


def test_a_failed_attempt_waits_its_time(store: JobStore) -> None:
    job = hand_in(store, "j", "a")
    (lease,) = take(store, job)
    assert store.fail(lease, BROKEN, now=NOW, retry_at=NOW + 5)
    assert take(store, job, now=NOW + 4) == []
    (again,) = take(store, job, now=NOW + 5)
    assert again.attempts == 1
    assert store.fail(again, BROKEN, now=NOW)
    (result,) = store.results(job)
    assert (result.state, result.attempts, result.error) == ("failed", 2, BROKEN)
    assert store.get(job).state == "failed"


def test_a_refusal_costs_no_attempt_and_is_remembered(store: JobStore) -> None:
    job = hand_in(store, "j", "a")
    for later in (1.0, 2.0):
        (lease,) = take(store, job, now=NOW + later)
        assert store.give_back([lease], not_before=NOW + later, refused_at=NOW + later) == 1
    (lease,) = take(store, job, now=NOW + 9)
    assert (lease.attempts, lease.refused_since) == (0, NOW + 1)


def test_cancelling_takes_the_lease_away_and_resuming_goes_on(store: JobStore) -> None:
    job = hand_in(store, "j", "a", "b", "c", "!")
    finish(store, job, x=1)
    (lease,) = take(store, job)
    assert store.cancel(job, now=NOW).state == "cancelled"
    assert not store.finish(lease, "{}", now=NOW)
    assert store.open_jobs() == []
    tally = store.tallies([job])[job]
    assert (tally.done, tally.cancelled, tally.failed) == (1, 2, 1)
    assert store.cancel(job, now=NOW + 9).finished == NOW
    assert store.resume(job, failed=True, now=NOW) == 2
    assert store.get(job).state == "queued"
    assert ids(take(store, job, 9)) == ["i1", "i2"]


def test_a_job_of_unusable_items_has_ended_at_once(store: JobStore) -> None:
    job = hand_in(store, "j", "!", "!")
    assert store.get(job).state == "failed"
    assert store.resume(job, failed=True, now=NOW) == 0


def test_a_key_makes_handing_in_twice_one_job(store: JobStore) -> None:
    first = hand_in(store, "j1", "a", "b", key="k")
    assert hand_in(store, "j2", "a", "b", key="k") == first
    assert hand_in(store, "j3", "a", "b", key="k", tenant="other") == "j3"
    with pytest.raises(Conflict, match="other work"):
        hand_in(store, "j4", "a", "c", key="k")
    with pytest.raises(NotFound):
        store.get("j2")


def test_more_than_may_wait_is_refused_and_leaves_nothing(store: JobStore) -> None:
    def offer(name: str, count: int, tenant: str = "", share: float = 1.0) -> None:
        given = items(*(f"{name}{n}" for n in range(count)))
        job = NewJob(name, "t", NOW, tenant=tenant)
        store.create(job, given, most_queued=4, share=share)

    offer("a", 3)
    with pytest.raises(Overloaded) as caught:
        offer("b", 2)
    assert caught.value.code == "jobs_full"
    with pytest.raises(InvalidInput):
        offer("c", 5)
    with pytest.raises(InvalidInput, match="2 may wait"):
        offer("d", 3, tenant="x", share=0.5)
    assert [job.id for job in store.recent()] == ["a"]
    store.cancel("a", now=NOW)
    offer("e", 2, tenant="x", share=0.5)
    with pytest.raises(Overloaded, match="2 items wait"):
        offer("f", 1, tenant="x", share=0.5)


def test_a_tenant_sees_its_own_jobs_only(store: JobStore) -> None:
    hand_in(store, "mine", "a", tenant="me")
    hand_in(store, "theirs", "a", tenant="they")
    assert [job.id for job in store.recent(tenant="me")] == ["mine"]
    assert [job.id for job in store.recent()] == ["theirs", "mine"]
    for touch in (
        lambda: store.get("theirs", tenant="me"),
        lambda: store.results("theirs", tenant="me"),
        lambda: store.cancel("theirs", tenant="me", now=NOW),
        lambda: store.resume("theirs", tenant="me", failed=True, now=NOW),
        lambda: store.doom("theirs", tenant="me"),
        lambda: store.recent(tenant="me", after="theirs"),
        lambda: store.result_keys("theirs", tenant="me"),
    ):
        with pytest.raises(NotFound):
            touch()
    assert store.get("theirs").state == "queued"


def test_lists_and_results_are_read_in_pages(store: JobStore) -> None:
    for number in range(5):
        hand_in(store, f"j{number}", "a", "b", "c")
    assert [job.id for job in store.recent(limit=2, after="j3")] == ["j2", "j1"]
    for lease in take(store, "j1", 3):
        store.finish(lease, '{"result": {}}', now=NOW)
    assert [r.ordinal for r in store.results("j1", after=0, limit=1)] == [1]
    assert store.results("j1", states=("failed",)) == []


def test_old_jobs_go_bit_by_bit_and_are_gone_at_once(store: JobStore) -> None:
    hand_in(store, "old", *(f"{n}" for n in range(7)), "0")
    hand_in(store, "open", "a")
    store.cancel("old", now=NOW)
    assert store.prune(before=NOW, at_most=3) == 0
    assert store.prune(before=NOW + 1, at_most=3) == 4
    with pytest.raises(NotFound):
        store.get("old")
    while store.prune(before=NOW + 1, at_most=3):
        pass
    assert [job.id for job in store.recent()] == ["open"]
    with pytest.raises(Conflict, match="open is queued"):
        store.doom("open")


def test_pace_looks_at_the_items_that_ended_last(store: JobStore) -> None:
    job = hand_in(store, "j", "a", "b", "c", "a")
    for at, lease in enumerate(take(store, job, 3)):
        store.finish(lease, '{"result": {}}', now=NOW + at)
    assert store.pace(job, since=NOW) == (2, NOW + 1)
    assert store.pace(job, since=NOW + 9) == (0, NOW + 9)


def test_the_fields_of_results_are_found(store: JobStore) -> None:
    job = hand_in(store, "j", "a", "b", "c")
    finish(store, job, label="x", score=1)
    finish(store, job, score=[1], extra=None)
    assert store.result_keys(job) == ["extra", "label", "score"]
    assert store.result_keys(job, most=1) == ["extra"]
