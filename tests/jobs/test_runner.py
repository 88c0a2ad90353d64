"""The runner: order, retries, pauses, drains, standing by; what it never does is lose an item."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.jobs.stage import SETTINGS, Stage, staged

from ondol.core.errors import BackendError, InvalidInput, Overloaded
from ondol.core.events import PressureChanged, RequestFinished, Timing
from ondol.jobs.intake import SubmittedItem
from ondol.jobs.job_rows import NewItem, NewJob
from ondol.jobs.job_throttle import CALM_SECONDS, QUIET_SECONDS
from ondol.jobs.work import FAKE_TASK, FakeWork


async def lines(stage: Stage, job: str) -> list[dict[str, Any]]:
    text = "".join([page async for page in stage.service.results(job)])
    return [json.loads(line) for line in text.splitlines()]


async def test_every_item_ends_with_its_own_outcome(tmp_path: Path) -> None:
    def script(input: Mapping[str, Any], before: int) -> Exception | None:
        return {
            "bad": InvalidInput("this text is bad", hint="send another"),
            "bug": KeyError("x"),
            "flaky": BackendError("broke") if before < 2 else None,
            "broken": BackendError("broke"),
        }.get(input["text"])

    work = FakeWork(script=script)
    async with staged(tmp_path, work=work) as stage:
        job = await stage.submit("one", "bad", "flaky", "broken", "bug", "one")
        view = await stage.ended(job)
        found = await lines(stage, job)
    assert (view.state, view.done, view.failed) == ("done", 3, 3)
    assert view.errors == {"invalid_input": 1, "internal": 1, "backend_failed": 1}
    assert [line.get("result", {}).get("text") for line in found] == (
        ["eno", None, "ykalf", None, None, "eno"]
    )
    assert [line["attempts"] for line in found] == [1, 1, 3, SETTINGS.attempts, 1, 1]
    assert found[1]["error"] == {
        "code": "invalid_input",
        "message": "this text is bad",
        "hint": "send another",
    }
    assert "KeyError" in found[4]["error"]["message"]
    assert found[5]["same_as"] == 0
    assert work.order.count("one") == 1
    assert {terms.lane for terms in work.terms} == {"batch"}


async def test_items_with_a_common_prefix_run_together(tmp_path: Path) -> None:
    async with staged(tmp_path, settings=SETTINGS.model_copy(update={"concurrency": 1})) as stage:
        given = [SubmittedItem(input={"text": f"{n}", "shared": f"p{n % 3}"}) for n in range(9)]
        view = await stage.service.submit(FAKE_TASK, given)
        await stage.ended(view.id)
        assert stage.work.order == ["0", "3", "6", "1", "4", "7", "2", "5", "8"]


async def test_no_more_run_at_once_than_may(tmp_path: Path) -> None:
    work = FakeWork(gate=asyncio.Event())
    async with staged(tmp_path, work=work) as stage:
        job = await stage.submit(*"abcdefg")
        await stage.until(lambda: work.running == 3)
        await stage.rests()
        assert (await stage.service.show(job)).running == 3
        assert work.gate is not None
        work.gate.set()
        await stage.ended(job)
        assert work.peak == 3


async def test_a_refusal_pauses_everything_and_costs_no_attempt(tmp_path: Path) -> None:
    refusing = True

    def script(input: Mapping[str, Any], before: int) -> Exception | None:
        return Overloaded("full", retry_after=40.0) if refusing else None

    work = FakeWork(script=script)
    async with staged(tmp_path, work=work) as stage:
        job = await stage.submit(*"abcdef")
        await stage.until(lambda: len(work.order) == 3)
        await stage.rests()
        stage.timers.advance(39.0)
        await stage.rests()
        assert len(work.order) == 3
        refusing = False
        view = await stage.ended(job)
        assert (view.done, view.failed) == (6, 0)
        assert {line["attempts"] for line in await lines(stage, job)} == {1}


async def test_who_is_refused_for_too_long_is_given_up(tmp_path: Path) -> None:
    patient = SETTINGS.model_copy(update={"patience_seconds": 100.0})
    work = FakeWork(script=lambda input, before: Overloaded("full", retry_after=30.0))
    async with staged(tmp_path, work=work, settings=patient) as stage:
        job = await stage.submit("a")
        view = await stage.ended(job, step=10.0)
        assert (view.state, view.errors) == ("failed", {"overloaded": 1})
        assert 3 <= len(work.order) <= 6


async def test_an_attempt_has_a_time_limit(tmp_path: Path) -> None:
    quick = SETTINGS.model_copy(update={"item_seconds": 0.005, "attempts": 1})
    async with staged(tmp_path, work=FakeWork(gate=asyncio.Event()), settings=quick) as stage:
        job = await stage.submit("a")
        assert (await stage.ended(job)).errors == {"item_timeout": 1}


async def test_a_result_that_is_too_large_fails_alone(tmp_path: Path) -> None:
    small = SETTINGS.model_copy(update={"max_result_bytes": 100})
    async with staged(tmp_path, settings=small) as stage:
        job = await stage.submit("a", "b" * 101)
        view = await stage.ended(job)
        assert (view.done, view.errors) == (1, {"result_too_large": 1})


async def test_closing_puts_back_what_runs_and_the_next_runner_goes_on(tmp_path: Path) -> None:
    work = FakeWork(gate=asyncio.Event())
    async with staged(tmp_path, work=work) as stage:
        job = await stage.submit(*"abcde")
        await stage.until(lambda: work.running == 3)
        await stage.runner.close()
        view = await stage.service.show(job)
        assert (view.running, view.queued, work.running) == (0, 5, 0)
    async with staged(tmp_path) as stage:
        view = await stage.ended(job)
        assert view.done == 5
        assert {line["attempts"] for line in await lines(stage, job)} == {1}


async def test_draining_lets_what_runs_end_and_begins_nothing(tmp_path: Path) -> None:
    work = FakeWork(gate=asyncio.Event())
    async with staged(tmp_path, work=work) as stage:
        job = await stage.submit(*"abcde")
        await stage.until(lambda: work.running == 3)
        draining = asyncio.create_task(stage.runner.drain(30.0))
        await asyncio.sleep(0.01)
        assert work.gate is not None
        work.gate.set()
        await draining
        view = await stage.service.show(job)
        assert (view.done, view.running, len(work.order)) == (3, 0, 3)


async def test_what_a_killed_process_left_is_taken_up_at_once(tmp_path: Path) -> None:
    async with staged(tmp_path, start=False) as stage:
        job = await stage.submit("a", "b")
        assert stage.store.claim(job, limit=2, now=stage.clock.wall(), seconds=1e9)
        stage.runner.start()
        assert (await stage.ended(job)).done == 2


async def test_one_works_and_another_stands_by(tmp_path: Path) -> None:
    async with staged(tmp_path) as first, staged(tmp_path, start=False) as second:
        await first.until(lambda: first.runner.working)
        second.runner.start()
        await second.rests()
        assert [first.runner.working, second.runner.working] == [True, False]
        await first.runner.close()
        job = await first.submit("a")
        assert (await second.ended(job)).done == 1
        assert second.runner.working


async def test_cancelling_stops_what_runs(tmp_path: Path) -> None:
    work = FakeWork(gate=asyncio.Event())
    async with staged(tmp_path, work=work) as stage:
        job = await stage.submit(*"abcde")
        await stage.until(lambda: work.running == 3)
        view = await stage.service.cancel(job)
        assert (view.state, view.cancelled) == ("cancelled", 5)
        await stage.until(lambda: work.running == 0)
        assert work.gate is not None
        work.gate.set()
        await stage.service.resume(job)
        assert (await stage.ended(job)).done == 5


async def test_another_process_may_cancel_what_runs_here(tmp_path: Path) -> None:
    work = FakeWork(gate=asyncio.Event())
    async with staged(tmp_path, work=work) as stage:
        job = await stage.submit("a")
        await stage.until(lambda: work.running == 1)
        await stage.rests()  # what keeps the lease waits on the clock now
        stage.store.cancel(job, now=stage.clock.wall())
        stage.timers.advance(SETTINGS.lease_seconds / 2)
        await stage.until(lambda: work.running == 0)


async def test_jobs_give_way_to_people_but_not_for_ever(tmp_path: Path) -> None:
    work = FakeWork(gate=asyncio.Event())
    async with staged(tmp_path, work=work, busy=True) as stage:
        await stage.submit(*"abcde")
        await stage.rests()
        assert work.running == 0
        stage.timers.advance(SETTINGS.give_way_seconds)
        await stage.until(lambda: work.running == 1)
        await stage.rests()
        assert work.running == 1
        stage.busy = False
        stage.timers.advance(QUIET_SECONDS)
        await stage.until(lambda: work.running == 3)


async def test_jobs_go_on_a_while_after_the_last_persons_request(tmp_path: Path) -> None:
    async with staged(tmp_path, busy=True) as stage:
        job = await stage.submit("a")
        await stage.rests()
        stage.busy = False
        stage.traffic.observe(RequestFinished("chat", "m", "ok", Timing()))
        await stage.rests()
        assert stage.work.order == []
        stage.timers.advance(CALM_SECONDS)
        await stage.until(lambda: stage.work.order == ["a"])
        await stage.ended(job)


async def test_a_person_who_came_and_went_between_two_looks_holds_jobs_back(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        stage.traffic.observe(RequestFinished("chat", "m", "ok", Timing()))
        job = await stage.submit("a")
        await stage.rests()
        assert stage.work.order == []
        stage.timers.advance(CALM_SECONDS)
        assert (await stage.ended(job)).done == 1


async def test_jobs_stop_while_the_machine_is_short(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.rests()
        stage.traffic.observe(PressureChanged("critical", "none", 0.25, True, ("memory",)))
        job = await stage.submit("a")
        await stage.rests()
        assert stage.work.order == []
        stage.traffic.observe(PressureChanged("none", "critical", 1.0, False))
        assert (await stage.ended(job)).done == 1


async def test_tenants_take_turns(tmp_path: Path) -> None:
    one = SETTINGS.model_copy(update={"concurrency": 1})
    async with staged(tmp_path, settings=one, start=False) as stage:
        first = await stage.submit("a1", "a2", "a3", tenant="a")
        second = await stage.submit("b1", "b2", tenant="b")
        stage.runner.start()
        await stage.ended(first)
        await stage.ended(second)
        assert stage.work.order == ["a1", "b1", "a2", "b2", "a3"]


async def test_a_higher_priority_goes_first_until_the_other_has_waited(tmp_path: Path) -> None:
    one = SETTINGS.model_copy(update={"concurrency": 1, "age_seconds": 10.0})
    async with staged(tmp_path, settings=one, start=False) as stage:
        jobs = [await stage.submit("low"), await stage.submit("high", priority=2)]
        stage.clock.advance(25.0)
        jobs.append(await stage.submit("late", priority=2))
        stage.runner.start()
        for job in jobs:
            await stage.ended(job)
        assert stage.work.order == ["high", "low", "late"]


async def test_a_runner_for_one_job_leaves_the_others(tmp_path: Path) -> None:
    async with staged(tmp_path, start=False) as stage:
        other, mine = await stage.submit("other"), await stage.submit("mine")
        stage.runner = stage.new_runner(only=mine)
        stage.runner.start()
        await stage.ended(mine)
        assert (await stage.service.show(other)).queued == 1


async def test_old_jobs_are_thrown_out(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        job = await stage.submit("a")
        await stage.ended(job)
        await stage.rests()
        stage.timers.advance(31 * 86400.0)
        await stage.until(lambda: stage.store.recent() == [])


async def test_suspects_run_alone_after_the_others(tmp_path: Path) -> None:
    work = FakeWork()
    async with staged(tmp_path, work=work, start=False) as stage:
        items = [NewItem(t, f'{{"text": "{t}"}}', t.encode(), "p") for t in "abcd"]
        job = stage.store.create(NewJob("j", FAKE_TASK, 1000.0), items, most_queued=9).id
        for _ in range(2):
            stage.store.claim(job, limit=2, now=1000.0, seconds=1.0)
            stage.store.reclaim(now=1000.0, crashes=5, everything=True)
        work.gate = asyncio.Event()
        stage.runner.start()
        await stage.until(lambda: work.running == 2)
        await stage.rests()
        assert sorted(work.order) == ["c", "d"]
        work.gate.set()
        work.peak = 0
        await stage.ended(job)
        assert work.order[2:] == ["a", "b"]
        assert work.peak == 1
