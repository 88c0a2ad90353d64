"""The lanes in front of a generator: who is admitted, who runs, who leaves, and with which words."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondol.core.clock import ManualClock
from ondol.core.errors import NotReady, OndolError, Overloaded
from ondol.core.request_terms import RequestTerms
from ondol.core.settings.lane_sections import LanesSettings
from ondol.core.timers import ManualTimers
from ondol.runtime.generation.cost import Estimate
from ondol.runtime.generation.dispatcher import Dispatcher
from ondol.runtime.generation.lane_queue import QueuedRequest, Size
from ondol.runtime.generation.policy import Fifo, Policy, Slo
from ondol.runtime.pressure import Pressure


def sized(prefill: float = 1.0, decode: float = 1.0) -> Size:
    """A request of a known size, whoever is beside it."""
    return lambda others: Estimate(
        prompt_tokens=100,
        uncached_tokens=100,
        output_tokens=max(1.0, decode / 0.1),
        prefill=prefill,
        surest=prefill,
        decode=decode,
        work=prefill + decode,
    )


class Stage:
    """A dispatcher whose clock, timers and backend the test holds."""

    def __init__(
        self,
        *,
        slots: int = 1,
        prefills: int = 0,
        policy: Policy | None = None,
        trusted: bool = True,
        **lanes: dict[str, Any],
    ) -> None:
        self.clock = ManualClock()
        self.timers = ManualTimers(self.clock)
        self.may_run = True
        self.dispatcher = Dispatcher(
            slots=slots,
            prefills=prefills or slots,
            lanes=LanesSettings.model_validate(lanes),
            policy=policy or Slo(age_seconds=30.0),
            clock=self.clock,
            timers=self.timers,
            may_run=lambda: self.may_run,
            trusted=lambda: trusted,
            step=lambda running: 0.1,
            jitter=lambda: 0.0,
        )

    def ask(self, size: Size | None = None, **terms: Any) -> asyncio.Task[QueuedRequest]:
        return asyncio.create_task(self.dispatcher.acquire(size or sized(), RequestTerms(**terms)))

    async def running(self, size: Size | None = None, **terms: Any) -> QueuedRequest:
        return await self.ask(size, **terms)

    async def pass_time(self, seconds: float) -> None:
        self.timers.advance(seconds)
        await settled()


async def settled() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


async def refusal(asked: Awaitable[QueuedRequest]) -> OndolError:
    with pytest.raises(OndolError) as caught:
        await asked
    return caught.value


async def test_a_full_lane_refuses_and_leaves_other_lanes_alone() -> None:
    stage = Stage(chat={"queue": 1, "sla_ms": 0}, search={"queue": 1, "sla_ms": 0})
    await stage.running()
    waiting = stage.ask()
    await settled()

    refused = await refusal(stage.ask())

    assert isinstance(refused, Overloaded)
    assert (refused.code, refused.retry_after >= 1) == ("overloaded", True)
    other = stage.ask(lane="search")
    await settled()
    now = stage.dispatcher.snapshot()
    assert (now.lanes["chat"].depth, now.lanes["search"].depth) == (1, 1)
    assert now.lanes["chat"].rejected == {"overloaded": 1}
    for task in (waiting, other):
        task.cancel()


async def test_people_are_counted_waiting_and_running_and_bulk_work_is_not() -> None:
    stage = Stage(chat={"sla_ms": 0}, search={"sla_ms": 0})
    assert stage.dispatcher.interactive() == 0
    ticket = await stage.running()
    waiting = [stage.ask(lane="search"), stage.ask(lane="batch")]
    await settled()
    assert stage.dispatcher.interactive() == 2
    stage.dispatcher.release(ticket, served=True)
    assert stage.dispatcher.interactive() == 1
    for task in waiting:
        task.cancel()


async def test_a_lane_runs_no_more_than_its_limit_while_others_use_the_slots() -> None:
    stage = Stage(slots=3, chat={"running": 1, "sla_ms": 0}, search={"sla_ms": 0})
    first = await stage.running()
    second = stage.ask()
    await settled()
    assert not second.done()
    await stage.running(lane="search")
    stage.dispatcher.release(first, served=True)
    assert (await second).lane == "chat"


async def test_a_key_holds_no_more_than_its_share_of_a_lane() -> None:
    stage = Stage(chat={"queue": 3, "sla_ms": 0})
    await stage.running(tenant="a", share=0.5)
    stage.ask(tenant="a", share=0.5)
    await settled()

    refused = await refusal(stage.ask(tenant="a", share=0.5))

    assert refused.code == "share_used"
    kept = stage.ask(tenant="b", share=0.5)
    await settled()
    assert not kept.done()


async def test_a_deadline_that_waiting_would_break_is_refused_with_the_time_to_come_back() -> None:
    stage = Stage(chat={"sla_ms": 0})
    await stage.running(sized(1.0, 9.0))

    refused = await refusal(stage.ask(sized(1.0, 1.0), deadline_ms=4000))

    assert isinstance(refused, Overloaded)
    assert refused.code == "deadline_infeasible"
    assert refused.retry_after == pytest.approx(7.0)  # free in 10 s, must begin within 3
    assert stage.dispatcher.snapshot().depth == 0


async def test_a_prompt_too_long_for_its_deadline_is_told_that_waiting_will_not_help() -> None:
    refused = await refusal(Stage().ask(sized(5.0), deadline_ms=2000))
    assert refused.code == "deadline_unreachable"
    assert "waiting will not help" in refused.hint


async def test_a_lane_does_not_refuse_for_its_promise_what_it_could_never_keep() -> None:
    stage = Stage(chat={"sla_ms": 2000})
    ticket = await stage.running(sized(5.0))
    assert ticket.promise_ms == 2000
    assert ticket.waiting.deadline is None


async def test_the_lanes_promise_refuses_where_only_the_wait_breaks_it() -> None:
    stage = Stage(chat={"sla_ms": 2000}, search={"sla_ms": 2000, "late": "serve"})
    await stage.running(sized(1.0, 9.0))
    late = stage.ask(lane="search")
    await settled()
    assert not late.done()
    assert (await refusal(stage.ask())).code == "deadline_infeasible"


async def test_the_lanes_promise_refuses_nobody_while_no_other_waits() -> None:
    stage = Stage(chat={"sla_ms": 2000})
    await stage.running(sized(1.0, 9.0))
    alone = stage.ask()
    await settled()
    assert not alone.done()
    assert (await refusal(stage.ask())).code == "deadline_infeasible"


async def test_nobody_is_refused_on_estimates_that_were_never_measured() -> None:
    stage = Stage(trusted=False, chat={"sla_ms": 0})
    await stage.running(sized(1.0, 9.0))
    waiting = stage.ask(sized(50.0), deadline_ms=100)
    await settled()
    assert not waiting.done()


async def test_what_can_no_longer_keep_its_promise_is_refused_at_that_moment() -> None:
    stage = Stage(chat={"sla_ms": 0})
    await stage.running(sized(0.5, 2.0))
    waiting = stage.ask(sized(1.0, 1.0), deadline_ms=4000)
    await settled()
    await stage.pass_time(2.9)
    assert not waiting.done()

    await stage.pass_time(0.2)

    refused = await refusal(waiting)
    assert refused.code == "deadline_lapsed"
    assert stage.dispatcher.snapshot().lanes["chat"].rejected == {"deadline_lapsed": 1}


async def test_the_other_policies_serve_late_rather_than_refuse() -> None:
    stage = Stage(policy=Fifo(), chat={"sla_ms": 0})
    first = await stage.running(sized(1.0, 9.0))
    waiting = stage.ask(sized(1.0), deadline_ms=4000)
    await stage.pass_time(20.0)
    assert not waiting.done()
    stage.dispatcher.release(first, served=True)
    assert (await waiting).started == 20.0


async def test_a_request_without_deadline_is_refused_only_for_a_wait_beyond_its_lanes_limit() -> (
    None
):
    stage = Stage(chat={"sla_ms": 0, "queue_seconds": 10})
    await stage.running(sized(1.0, 6.5))
    refused = await refusal(stage.ask())
    assert refused.code == "overloaded"
    assert "8 s away" in refused.message


async def test_the_wait_in_a_lane_has_its_limit() -> None:
    stage = Stage(chat={"sla_ms": 0, "queue_seconds": 10})
    await stage.running(sized(0.5, 0.5))
    waiting = stage.ask()
    await settled()
    await stage.pass_time(10.0)
    assert (await refusal(waiting)).code == "queue_deadline_exceeded"


async def test_prefills_go_one_at_a_time() -> None:
    stage = Stage(slots=3, prefills=1, chat={"sla_ms": 0})
    first = await stage.running()
    second = stage.ask()
    await settled()
    assert not second.done()

    stage.dispatcher.began(first)

    assert (await second).others == 1


async def test_a_prefill_that_ends_without_a_token_lets_the_next_begin() -> None:
    stage = Stage(slots=2, prefills=1, chat={"sla_ms": 0})
    first = await stage.running()
    second = stage.ask()
    await settled()
    stage.dispatcher.release(first, served=False)
    assert (await second).others == 0


async def test_pressure_lowers_what_runs_and_sheds_the_batch_lane() -> None:
    stage = Stage(slots=4, chat={"sla_ms": 0})
    await stage.running()
    await stage.running()
    stage.dispatcher.press(Pressure("critical", 0.5, shed=True, reasons=("memory",)))
    third = stage.ask()
    await settled()
    assert not third.done()
    refused = await refusal(stage.ask(lane="batch"))
    assert refused.code == "shed"
    assert "memory" in refused.message
    stage.dispatcher.press(Pressure())
    await third


async def test_work_that_cannot_run_now_is_held_and_asked_for_again() -> None:
    stage = Stage(chat={"sla_ms": 0})
    stage.may_run = False
    waiting = stage.ask()
    await settled()
    assert not waiting.done()
    stage.may_run = True
    await stage.pass_time(0.2)
    await waiting


async def test_leaving_the_queue_frees_the_place_at_once() -> None:
    stage = Stage(chat={"queue": 1, "sla_ms": 0})
    await stage.running()
    waiting = stage.ask()
    await settled()
    waiting.cancel()
    await settled()
    assert stage.dispatcher.snapshot().depth == 0
    again = stage.ask()
    await settled()
    assert not again.done()


async def test_a_caller_that_leaves_as_it_is_granted_gives_the_slot_back() -> None:
    stage = Stage(chat={"sla_ms": 0})
    first = await stage.running()
    second, third = stage.ask(), stage.ask()
    await settled()
    stage.dispatcher.release(first, served=True)
    second.cancel()
    assert (await third).lane == "chat"
    assert stage.dispatcher.snapshot().running == 1


async def test_closing_ends_every_wait_and_admits_nothing() -> None:
    stage = Stage(chat={"sla_ms": 0})
    first = await stage.running()
    waiting = stage.ask()
    await settled()
    stage.dispatcher.close()
    assert isinstance(await refusal(stage.ask()), NotReady)
    stage.dispatcher.fail_waiting()
    assert isinstance(await refusal(waiting), NotReady)
    stage.dispatcher.release(first, served=True)
    await stage.dispatcher.idle()


async def test_lanes_that_all_want_more_get_their_weights() -> None:
    stage = Stage(
        chat={"sla_ms": 0, "queue": 200, "weight": 3.0, "queue_seconds": 3600},
        search={"sla_ms": 0, "queue": 200, "weight": 1.0, "queue_seconds": 3600},
    )
    first = await stage.running()
    tasks = [stage.ask(lane=lane) for _ in range(80) for lane in ("chat", "search")]
    await settled()
    served = {"chat": 0, "search": 0}
    ticket = first
    for _ in range(80):
        await stage.pass_time(0.1)
        stage.dispatcher.release(ticket, served=True)
        await settled()
        [ticket] = [
            t.result() for t in tasks if t.done() and t.result().started == stage.clock.monotonic()
        ]
        served[ticket.lane] += 1
    assert served["chat"] == pytest.approx(60, abs=6)
    for task in tasks:
        task.cancel()


moves = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "cancel", "began", "release", "wait", "press"]),
        st.integers(0, 9),
        st.sampled_from([None, 500.0, 4000.0]),
        st.sampled_from(["chat", "search", "batch"]),
    ),
    max_size=60,
)


class Play:
    """Random moves on a stage, and what must hold after each."""

    def __init__(self, policy: Policy, prefills: int) -> None:
        self.prefills = prefills
        self.stage = Stage(
            slots=3,
            prefills=prefills,
            policy=policy,
            chat={"queue": 5, "running": 2},
            search={"queue": 4, "queue_seconds": 6},
            batch={"queue": 3},
        )
        self.tasks: list[asyncio.Task[QueuedRequest]] = []
        self.running: list[QueuedRequest] = []
        self.seen: set[int] = set()

    async def move(self, kind: str, number: int, deadline: float | None, lane: str) -> None:
        dispatcher = self.stage.dispatcher
        if kind == "ask":
            size = sized(0.2 * (number + 1), 0.5 * number)
            self.tasks.append(self.stage.ask(size, lane=lane, deadline_ms=deadline))
        elif kind == "cancel" and self.tasks:
            self.tasks[number % len(self.tasks)].cancel()
        elif kind == "began" and self.running:
            dispatcher.began(self.running[number % len(self.running)])
        elif kind == "release" and self.running:
            dispatcher.release(self.running.pop(number % len(self.running)), served=True)
        elif kind == "wait":
            await self.stage.pass_time(0.3 * number)
        elif kind == "press":
            dispatcher.press(Pressure(concurrency=(0.25, 0.5, 1.0)[number % 3]))
        await settled()
        self.collect()

    def collect(self) -> None:
        """Take over the tickets that were granted since the last look."""
        for task in self.tasks:
            if task.done() and not task.cancelled() and task.exception() is None:
                ticket = task.result()
                if id(ticket) not in self.seen:
                    self.seen.add(id(ticket))
                    self.running.append(ticket)

    def check(self) -> None:
        """No more run than may, and where a slot and a prefill are free nobody waits who could run."""
        now = self.stage.dispatcher.snapshot()
        assert now.running == len(self.running) <= 3
        reading = sum(ticket.reading for ticket in self.running)
        if len(self.running) < now.open_slots and reading < self.prefills:
            assert all(lane.depth == 0 or lane.running >= lane.limit for lane in now.lanes.values())

    async def finish(self) -> None:
        """Let everything end; everybody has left, once."""
        self.stage.dispatcher.press(Pressure())
        for _ in range(200):
            await settled()
            self.collect()
            if not self.running and all(task.done() for task in self.tasks):
                break
            while self.running:
                self.stage.dispatcher.release(self.running.pop(), served=True)
        results = await asyncio.gather(*self.tasks, return_exceptions=True)
        assert all(
            isinstance(r, (QueuedRequest, Overloaded, asyncio.CancelledError)) for r in results
        )
        now = self.stage.dispatcher.snapshot()
        assert (now.depth, now.running) == (0, 0)
        await self.stage.dispatcher.idle()


@settings(max_examples=60, deadline=None)
@given(plan=moves, policy=st.sampled_from(["slo", "fifo"]), prefills=st.integers(1, 3))
async def test_whatever_happens_everybody_leaves_once_and_no_slot_idles(
    plan: list[tuple[str, int, float | None, str]], policy: str, prefills: int
) -> None:
    play = Play(Slo(age_seconds=5.0) if policy == "slo" else Fifo(), prefills)
    for kind, number, deadline, lane in plan:
        await play.move(kind, number, deadline, lane)
        play.check()
    await play.finish()
