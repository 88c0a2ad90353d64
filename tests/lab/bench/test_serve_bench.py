"""The comparison of policies over fake servers, its picture, and the command itself."""

from __future__ import annotations

import asyncio
import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import fake_container
from tests.lab.bench.chat_server import Answer, ChatServer, Decide, always, chat_server

from ondol.cli.invocation import Invocation
from ondol.cli.main import main
from ondol.core.errors import BackendError
from ondol.lab.bench.attainment_plot import draw
from ondol.lab.bench.generator_bench import GenerateBench, Sizes
from ondol.lab.bench.load_figures import Promise
from ondol.lab.bench.load_measuring import tokens_within
from ondol.lab.bench.load_plan import Arrivals, Target
from ondol.lab.bench.request_trace import Row
from ondol.lab.bench.serve_bench import ALONE, ServeBench, ServeLoad, Server, ServeTerms

ROWS = tuple(Row(float(n), 30 + n, 2 + n % 3) for n in range(30))


class Fake:
    """A chat server as the bench sees one, with memory of its own telling."""

    def __init__(self, server: ChatServer) -> None:
        self.url = server.url
        self.target = Target(server.url, "fake")

    def memory_mb(self, *, peak: bool = False) -> float:
        return 200.0 if peak else 100.0


class Fleet:
    """Starts a fake server per policy and keeps what each was asked."""

    def __init__(self, **decides: Decide) -> None:
        self._decides = decides
        self.started: list[str] = []
        self.servers: list[ChatServer] = []

    @contextmanager
    def __call__(self, policy: str) -> Iterator[Server]:
        self.started.append(policy)
        with chat_server(self._decides.get(policy, always)) as server:
            self.servers.append(server)
            yield Fake(server)


def terms(**more: Any) -> ServeTerms:
    given: dict[str, Any] = {
        "model": "fake",
        "policies": ("slo", "fifo"),
        "slots": 2,
        "context_tokens": 2048,
        "most_output": 64,
        "promise": Promise(10_000, resamples=50),
        "deadline_ms": 2000,
        **more,
    }
    return ServeTerms(**given)


def bench(load: ServeLoad, fleet: Fleet, **more: Any) -> dict[str, Any]:
    return ServeBench(load, terms(**more), start=fleet, note=lambda _: None).run()


def said(server: ChatServer) -> list[str]:
    """Return the texts of the requests that had a deadline: those of the run, in order."""
    pairs = zip(server.bodies, server.headers, strict=True)
    return [
        body["messages"][1]["content"]
        for body, headers in pairs
        if "x-ondol-deadline-ms" in headers
    ]


def test_every_policy_replays_the_same_schedule_on_a_fresh_server_in_turn() -> None:
    fleet = Fleet()
    load = ServeLoad(ROWS, Arrivals("burst", size=3, every=0.01), rates=(50.0,), count=9, warm_up=2)
    found = bench(load, fleet)
    assert fleet.started == [ALONE, "slo", "fifo"]
    slo, fifo = (said(server) for server in fleet.servers[1:])
    assert len(slo) == 9
    assert sorted(slo) == sorted(fifo)
    assert not said(fleet.servers[0])
    for policy in ("slo", "fifo"):
        one = found["policies"][policy]
        assert (one["offered"], one["completed"], one["rejected"]) == (9, 9, 0)
        assert one["attainment_offered"] == one["attainment_admitted"] == 1.0
        assert one["prompt_tokens_wanted"] == one["prompt_tokens_got"]
        assert one["memory_mb"] == {"before": 100, "after": 100, "peak": 200}
        assert one["ttft_p99_ms"] >= one["ttft_p50_ms"] > 0
        assert one["max_wait_ms"] >= one["ttft_p99_ms"]


def test_loads_are_shares_of_the_capacity_and_policies_take_turns() -> None:
    fleet = Fleet()
    load = ServeLoad(ROWS, Arrivals(), loads=(0.5, 1.0), count=4, capacity_requests=6, warm_up=0)
    found = bench(load, fleet)
    assert fleet.started == [ALONE, "slo", "fifo", "fifo", "slo"]
    assert [round(run["load"], 6) for run in found["runs"]] == [0.5, 0.5, 1.0, 1.0]
    assert found["capacity_rps"] > 0
    assert found["policies"]["slo"]["load"] == pytest.approx(1.0)
    assert len(found["policies"]["fifo"]["attainment_by_load"]) == 2


def test_what_one_policy_refuses_is_its_own_figure() -> None:
    async def every_second(number: int, body: dict[str, Any]) -> Answer:
        return Answer(429, retry_after="1") if number % 2 else Answer()

    fleet = Fleet(slo=every_second)
    load = ServeLoad(ROWS, Arrivals("burst"), count=8, warm_up=0)
    found = bench(load, fleet)["policies"]
    assert (found["slo"]["rejected"], found["fifo"]["rejected"]) == (4, 0)
    assert found["slo"]["attainment_offered"] == 0.5
    assert found["slo"]["attainment_admitted"] == 1.0
    assert found["slo"]["retry_after_missing"] == 0


def test_the_scale_follows_the_measured_prefill() -> None:
    ladder = [(100, 0.1), (200, 0.3), (400, 0.9)]
    assert tokens_within(ladder, 0.2) == pytest.approx(150)
    assert tokens_within(ladder, 0.05) == pytest.approx(50)
    assert tokens_within(ladder, 1.2) == pytest.approx(500)
    fleet = Fleet()
    load = ServeLoad(ROWS, Arrivals("burst"), count=4, warm_up=0, median_prefill=0.5)
    found = bench(load, fleet, policies=("fifo",))
    assert found["scale"] > 0
    assert [row["prompt_tokens"] for row in found["prefill_alone"]] == [64, 128, 256, 512, 1024]


def test_a_server_that_refuses_everything_cannot_be_measured() -> None:
    async def refuse(number: int, body: dict[str, Any]) -> Answer:
        return Answer(429, retry_after="1")

    with pytest.raises(BackendError, match="answered 429"):
        bench(ServeLoad(ROWS, Arrivals()), Fleet(alone=refuse))


def test_generate_compares_both_sides_with_the_same_texts() -> None:
    sizes = Sizes(60, 4, 30, 5, 80, streams=3, lone=2, rounds=2)
    with chat_server() as one, chat_server() as other:
        found = GenerateBench(sizes, ours=Fake(one), raw=Fake(other), note=lambda _: None).run()
    theirs = [json.dumps(body) for body in other.bodies]
    assert set(theirs) <= {json.dumps(body) for body in one.bodies}
    assert len(theirs) == 2 + 2 * (2 + 3)
    assert {"added_ttft_ms", "throughput_ratio", "prefill_tokens_per_second"} <= set(found)
    assert found["throughput_ratio"] > 0
    turns = [body["messages"] for body in one.bodies[-2:]]
    assert turns[1][:2] == turns[0]
    assert found["second_turn"]["context_tokens"] == 80
    alone = GenerateBench(sizes, ours=Fake(one), raw=None, note=lambda _: None)
    with pytest.raises(BackendError, match="does not answer"):
        alone.run()


def test_generate_says_when_a_request_was_refused() -> None:
    async def later(number: int, body: dict[str, Any]) -> Answer:
        await asyncio.sleep(0)
        return Answer(429, retry_after="1") if body.get("stream") else Answer()

    with chat_server(later) as server, pytest.raises(BackendError, match="429 overloaded"):
        GenerateBench(Sizes(), ours=Fake(server), raw=None, note=lambda _: None).run()


def test_the_picture_has_a_line_a_policy() -> None:
    runs = [
        {
            "policy": policy,
            "load": load,
            "attainment_offered": 0.5,
            "ci95": {"attainment_offered": [0.4, 0.6]},
        }
        for policy in ("slo", "fi<fo")
        for load in (0.7, 0.9)
    ]
    picture = ET.fromstring(draw(runs, title="a & b", subtitle="s"))
    space = "{http://www.w3.org/2000/svg}"
    assert len(picture.findall(f"{space}polyline")) == 2
    assert len(picture.findall(f"{space}circle")) == 4
    assert ET.fromstring(draw([{**runs[0], "load": None, "ci95": {}}], title="t", subtitle="s"))


def test_the_command_loads_a_given_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "plot.svg"
    line = ["bench", "serve", "--model", "fake", "--sizes", "40x2", "--requests", "5"]
    line += ["--rates", "200", "--warm-up", "1", "--plot", str(plot), "--sla-ms", "9000"]
    line += ["--set", "server.api_keys=one,two"]
    with chat_server() as server:
        for more in (["--json"], []):
            code = main(
                [*line, "--url", f"{server.url}/", *more],
                invocation=Invocation(open_container=fake_container),
            )
            out, err = capsys.readouterr()
            assert code == 0, err
            if more:
                found = json.loads(out)
            else:
                assert "as it runs" in out
    assert {headers["authorization"] for headers in server.headers} == {"Bearer one"}
    (run,) = found["runs"]
    assert (run["offered"], run["completed"], run["load"]) == (5, 5, None)
    assert found["policies"]["as it runs"]["attainment_offered"] == 1.0
    assert found["settings"]["rates"] == [200.0]
    assert {"cpu", "cores", "commit", "seed"} <= set(found)
    assert plot.read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["--policies", "lifo"], "slo, sjf, fifo"),
        (["--loads", "a"], "not a list of numbers"),
        (["--loads", "0"], "not above 0"),
        (["--arrivals", "trace"], "--trace FILE"),
        (["--sizes", "60"], "PROMPTxANSWER"),
        (["--url", "http://127.0.0.1:1"], "--model"),
    ],
)
def test_usage(capsys: pytest.CaptureFixture[str], more: list[str], word: str) -> None:
    line = ["bench", "serve", *more]
    if "--url" not in more:
        line += ["--model", "fake", "--url", "http://127.0.0.1:1"]
    code = main(line, invocation=Invocation(open_container=fake_container))
    assert code == 2
    assert word in capsys.readouterr().err


@pytest.mark.parametrize("command", ["serve", "generate"])
def test_a_generator_that_was_never_pulled_is_named_with_the_remedy(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    line = ["bench", command, "--model", "smollm2-135m-instruct", "--json"]
    assert main(line, invocation=Invocation(open_container=fake_container)) == 2
    assert "ondol models pull" in json.loads(capsys.readouterr().out)["error"]["hint"]
