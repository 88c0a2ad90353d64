"""The client process against a server that plays by a script: times, refusals, leaving, breaks."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from tests.lab.bench.chat_server import Answer, chat_server

from ondol.lab.bench.load_figures import Promise, figures
from ondol.lab.bench.load_plan import LoadRun, Manner, Shot, Target, ask
from ondol.lab.bench.load_prompts import messages_of
from ondol.lab.bench.request_trace import Row


def shots(count: int, *, every: float = 0.0, leave_after: float | None = None) -> list[Shot]:
    row = Row(0.0, 20, 3)
    return [Shot(n * every, row, messages_of(["a"] * 4), leave_after) for n in range(count)]


def target(url: str) -> Target:
    return Target(url, "fake", {"x-extra": "1"})


def test_it_counts_tokens_and_keeps_times_in_order() -> None:
    with chat_server() as server:
        run = ask(target(server.url).with_deadline(1500), shots(2))
    for one in run.seen:
        assert one.outcome == "ok"
        assert (one.completion_tokens, one.finish, len(one.gaps)) == (3, "length", 2)
        assert one.prompt_tokens == 10 + sum(
            len(message["content"].split()) for message in server.bodies[0]["messages"]
        )
        assert one.first is not None
        assert one.last is not None
        assert one.at <= one.first <= one.last <= one.end
    assert server.headers[0]["x-ondol-deadline-ms"] == "1500"
    assert server.headers[0]["x-extra"] == "1"
    assert server.bodies[0]["max_tokens"] == 3
    assert run.client_cpu_seconds > 0


def test_sends_wait_for_no_answer_and_a_stall_is_in_the_percentiles() -> None:
    """The server answers nobody before the last request is there: a client that waits hangs."""
    count, every = 12, 0.05
    last_came = asyncio.Event()

    async def stall(number: int, body: dict[str, Any]) -> Answer:
        if number == count - 1:
            last_came.set()
        await last_came.wait()
        return Answer()

    with chat_server(stall) as server:
        run = ask(target(server.url), shots(count, every=every))
    found = figures(run.seen, Promise(sla_ms=every * 1e3 * 2))
    # Answered only after the last was sent, so each waited at least from its schedule until then.
    for number, one in enumerate(run.seen):
        assert one.ttft is not None
        assert one.ttft >= (count - 1 - number) * every - 1e-6
    assert found["ttft_p99_ms"] >= (count - 2) * every * 1e3
    assert found["max_wait_ms"] >= (count - 1) * every * 1e3 - 1e-3
    assert found["attainment_offered"] < 0.5


def test_refusals_are_kept_with_code_and_retry_after() -> None:
    async def refuse(number: int, body: dict[str, Any]) -> Answer:
        return [
            Answer(429, code="shed", retry_after="7"),
            Answer(503, code="draining"),
            Answer(500, code="internal"),
        ][number]

    with chat_server(refuse) as server:
        run = ask(target(server.url), shots(3), Manner(concurrency=1))
    found = figures(run.seen, Promise())
    assert (found["offered"], found["rejected"], found["failed"], found["completed"]) == (
        3,
        2,
        1,
        0,
    )
    assert found["refusals_by_code"] == {"429 shed": 1, "503 draining": 1}
    assert found["retry_after_missing"] == 1
    assert found["retry_after_p50_s"] == 7
    assert found["failures"] == {"internal": 1}
    assert found["refusal_p99_ms"] > 0


def test_a_client_that_obeys_comes_back_until_served_or_out_of_tries() -> None:
    async def third_time(number: int, body: dict[str, Any]) -> Answer:
        return Answer() if number == 2 else Answer(429, retry_after="0")

    with chat_server(third_time) as server:
        served = ask(target(server.url), shots(1), Manner(retries=3))
        given_up = ask(target(server.url), shots(1), Manner(retries=1))
    found = figures(served.seen, Promise(), retries=3)
    assert (found["completed"], found["rejected"], found["refusals"]) == (1, 0, 2)
    assert found["served_within_tries"] == 1
    assert found["served_at_try"] == {"3": 1}
    assert given_up.seen[0].outcome == "refused"
    assert len(given_up.seen[0].refusals) == 2


def test_a_broken_stream_and_an_error_in_it_are_failures() -> None:
    async def breaks(number: int, body: dict[str, Any]) -> Answer:
        return Answer(tokens=2, breaks=True)

    with chat_server(breaks) as server:
        (one,) = ask(target(server.url), shots(1)).seen
    assert one.outcome == "failed"
    assert one.first is not None
    assert not one.met(60)


def test_leavers_and_time_outs_hang_up() -> None:
    async def hold(number: int, body: dict[str, Any]) -> Answer:
        await asyncio.Event().wait()
        return Answer()

    with chat_server(hold) as server:
        left = ask(target(server.url), shots(1, leave_after=0.01))
        timed_out = ask(target(server.url), shots(1), Manner(timeout=0.05))
    assert left.seen[0].outcome == "left"
    assert timed_out.seen[0].outcome == "timeout"
    found = figures([*left.seen, *timed_out.seen], Promise())
    assert (found["offered"], found["left"], found["failed"]) == (2, 1, 1)


def test_nobody_there_is_a_failure_of_each_request() -> None:
    with chat_server() as server:
        url = server.url
    run: LoadRun = ask(target(url), shots(2))
    assert [one.outcome for one in run.seen] == ["failed", "failed"]
    assert run.seen[0].code == "ConnectionRefusedError"


def test_a_closed_loop_has_so_many_at_once_and_ends_when_enough_were_served() -> None:
    at_once, most = 0, 0

    async def watch(number: int, body: dict[str, Any]) -> Answer:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        return Answer()

    with chat_server(watch) as server:
        run = ask(target(server.url), shots(20), Manner(concurrency=3, counted=10))
    assert most <= 3
    assert 10 <= len(run.seen) < 20
    assert all(one.outcome == "ok" for one in run.seen)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_an_answer_in_any_pieces_is_the_same_answer(size: int) -> None:
    """The bytes of a chunked stream, fed ``size`` at a time, whatever the chunks' own bounds."""
    from ondol.lab.bench.load_exchange import Exchange

    async def feed() -> tuple[int, str, str, int]:
        loop = asyncio.get_running_loop()
        asked = Exchange(b"", loop=loop)
        events = (
            'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n',
            'data: {"choices":[{"delta":{"content": "\\"a"}}]}\n\n: ping\n\n',
            'data: {"choices":[{"delta":{"content":"b"}}]}\n\n',
            'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n',
            'data: {"choices":[],"usage":{"completion_tokens":2}}\n\ndata: [DONE]\n\n',
        )
        stream = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        for event in events:
            stream += f"{len(event):x}\r\n{event}\r\n".encode()
        stream += b"0\r\n\r\n"
        for at in range(0, len(stream), size):
            asked.data_received(stream[at : at + size])
        reply = await asked.over
        return len(reply.tokens), reply.outcome, reply.finish, reply.usage["completion_tokens"]

    assert asyncio.run(feed()) == (2, "ok", "stop", 2)


def test_the_client_imports_nothing_that_takes_time_from_its_clock() -> None:
    script = (
        "import sys, ondol.lab.bench.load_client; "
        "print([name for name in ('httpx', 'numpy', 'pydantic', 'rich') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
