"""Jobs: handing in ten thousand items, one call instead of many, killed servers, people meanwhile.

``intake`` needs no model. The others start a server of their own and work ``--items`` (JSON Lines of
``{"id", "input"}``) by ``--task``: ``batch`` against the same items one by one, ``kills`` with kill -9
in the middle against an undisturbed run, ``people`` with a chat a few seconds beside the job.
Run: ``python benchmarks/jobs.py [intake batch kills people] --task NAME --items FILE``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
from common import command, environment, report, table, working_home

from ondol.core.clock import SystemClock
from ondol.core.job_section import JobSettings
from ondol.services.jobs.fake_work import FAKE_TASK, FakeWork
from ondol.services.jobs.feed import JobFeed
from ondol.services.jobs.intake import Given
from ondol.services.jobs.service import JobService
from ondol.store.database import Database
from ondol.store.jobs import JobStore

READY = re.compile(r"ondol is ready on (http://\S+)")
CHAT_SECONDS = 3.0


class Server:
    """A server on ``home`` that can be killed. ``script`` serves in the place of ``ondol serve``."""

    def __init__(self, home: Path, *, script: str, over: Sequence[str] = ()) -> None:
        line = [sys.executable, script, "0"] if script else command("serve", "--port", "0")
        pairs = (one.split("=", 1) for one in over)
        extra = {f"ONDOL_{key.replace('.', '_').upper()}": value for key, value in pairs}
        self._process = subprocess.Popen(
            line,
            env={**environment(home), **extra},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        url = ""
        for said in self._process.stderr or ():
            if found := READY.search(said):
                url = found[1]
                break
        if not url:
            raise SystemExit("the server did not start")
        threading.Thread(target=self._forget, daemon=True).start()
        self.http = httpx.Client(base_url=url, timeout=None, trust_env=False)

    def stop(self, number: signal.Signals) -> None:
        """Send the signal and wait for the end."""
        self._process.send_signal(number)
        self._process.wait()
        self.http.close()

    def _forget(self) -> None:
        for _ in self._process.stderr or ():
            pass


@contextmanager
def served(args: argparse.Namespace, home: Path) -> Iterator[Server]:
    server = Server(home, script=args.server, over=args.set)
    try:
        yield server
    finally:
        server.stop(signal.SIGTERM)


def hand_in(http: httpx.Client, task: str, items: Sequence[Any]) -> str:
    response = http.post("/v1/jobs", json={"task": task, "items": list(items)})
    response.raise_for_status()
    job: str = response.json()["id"]
    return job


def follow(http: httpx.Client, job: str, *, until: int | None = None) -> dict[str, Any]:
    """Return the job when it has ended, or when ``until`` items have."""
    with http.stream("GET", f"/v1/jobs/{job}/events") as events:
        for line in events.iter_lines():
            if line.startswith("data: "):
                view: dict[str, Any] = json.loads(line[6:])
                ended = view["done"] + view["failed"]
                if view["finished"] is not None or (until is not None and ended >= until):
                    return view
    raise SystemExit("the events ended too early")


def outcomes(http: httpx.Client, job: str) -> dict[str, Any]:
    """Return what each item came to, without times."""
    lines = map(json.loads, http.get(f"/v1/jobs/{job}/results").text.splitlines())
    return {
        one["id"]: (one["status"], one.get("result"), (one.get("error") or {}).get("code"))
        for one in lines
    }


async def intake(count: int) -> dict[str, Any]:
    """Hand in ``count`` items, list, look, read."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder) / "ondol.db", clock=SystemClock())
        store = JobStore(database)
        service = JobService(
            store, FakeWork(), settings=JobSettings(), clock=SystemClock(), feed=JobFeed()
        )
        given = [
            Given(input={"text": f"리뷰 {n} " * 20, "shared": str(n % 7)}) for n in range(count)
        ]
        before = time.perf_counter()
        job = (await service.submit(FAKE_TASK, given)).id
        submit = time.perf_counter() - before
        before = time.perf_counter()
        await service.list()
        listing = time.perf_counter() - before
        before = time.perf_counter()
        for lease in store.claim(job, limit=count, now=time.time(), seconds=60):
            store.finish(lease, '{"result": {"label": "good"}}', now=time.time())
        working = time.perf_counter() - before
        before = time.perf_counter()
        size = sum([len(page) async for page in service.results(job)])
        reading = time.perf_counter() - before
        database.close()
    return {
        "intake_items": count,
        "submit_seconds": submit,
        "list_ms": listing * 1e3,
        "finish_ms_per_item": working / count * 1e3,
        "results_seconds": reading,
        "results_mb": size / 1e6,
    }


def batch(args: argparse.Namespace, items: Sequence[Any]) -> dict[str, Any]:
    """One call against one item at a time, on two fresh servers of the same home."""
    home = working_home("jobs")
    with served(args, home) as server:
        before = time.perf_counter()
        for item in items:
            follow(server.http, hand_in(server.http, args.task, [item]))
        alone = time.perf_counter() - before
    with served(args, home) as server:
        before = time.perf_counter()
        view = follow(server.http, hand_in(server.http, args.task, items))
        together = time.perf_counter() - before
    return {
        "items": len(items),
        "done": view["done"],
        "failed": view["failed"],
        "one_by_one_seconds": alone,
        "job_seconds": together,
        "speedup": alone / together,
    }


def kills(args: argparse.Namespace, items: Sequence[Any]) -> dict[str, Any]:
    """Kill the server ``args.kills`` times in the middle; the results must be an undisturbed run's."""
    chance = random.Random(args.seed)
    marks = sorted(chance.sample(range(1, len(items)), args.kills))
    home = working_home("jobs-killed")
    job = ""
    for mark in marks:
        server = Server(home, script=args.server, over=args.set)
        job = job or hand_in(server.http, args.task, items)
        follow(server.http, job, until=mark)
        server.stop(signal.SIGKILL)
    with served(args, home) as server:
        follow(server.http, job)
        disturbed = outcomes(server.http, job)
    with served(args, working_home("jobs-calm")) as server:
        calm_job = hand_in(server.http, args.task, items)
        follow(server.http, calm_job)
        calm = outcomes(server.http, calm_job)
    differing = [name for name in calm if calm[name] != disturbed.get(name)]
    return {
        "kills": len(marks),
        "killed_at": marks,
        "lost": len(calm) - len(disturbed),
        "differing": len(differing),
        "equal": calm == disturbed,
    }


def people(args: argparse.Namespace, items: Sequence[Any]) -> dict[str, Any]:
    """Chat every few seconds, without the job and beside it."""
    with served(args, working_home("jobs-people")) as server:
        chat(server.http, 3, args)
        quiet = chat(server.http, args.chats, args)
        job = hand_in(server.http, args.task, items)
        beside = chat(server.http, args.chats, args)
        view = server.http.get(f"/v1/jobs/{job}").json()
        server.http.delete(f"/v1/jobs/{job}")
    return {
        "ttft_p95_quiet_s": quiet[int(0.95 * len(quiet))],
        "ttft_p95_beside_s": beside[int(0.95 * len(beside))],
        "ttft_ratio": beside[int(0.95 * len(beside))] / quiet[int(0.95 * len(quiet))],
        "ttft_p50_quiet_s": statistics.median(quiet),
        "ttft_p50_beside_s": statistics.median(beside),
        "items_ended_meanwhile": view["done"] + view["failed"],
        "job_still_open": view["finished"] is None,
    }


def chat(http: httpx.Client, count: int, args: argparse.Namespace) -> list[float]:
    """Return the seconds to the first token of ``count`` chats, ascending."""
    chance, seconds = random.Random(args.seed), []
    for number in range(count):
        time.sleep(chance.expovariate(1 / CHAT_SECONDS))
        question = f"{number}: " + " ".join(
            chance.choices(["국밥", "김치", "배달", "포장", "주문", "사장", "손님"], k=40)
        )
        body = {
            "model": "auto",
            "messages": [{"role": "user", "content": question}],
            "max_tokens": 24,
            "stream": True,
        }
        before = time.perf_counter()
        with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            waiting = True
            for line in answer.iter_lines():
                if waiting and '"content":"' in line and '"content":""' not in line:
                    seconds.append(time.perf_counter() - before)
                    waiting = False
    return sorted(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    scenes = {"batch": batch, "kills": kills, "people": people}
    parser.add_argument("scenes", nargs="*", default=["intake"], choices=["intake", *scenes])
    parser.add_argument("--task", default=FAKE_TASK)
    parser.add_argument("--items", type=Path, help="JSON Lines of {id, input}")
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--count", type=int, default=10_000, help="items of the scene intake")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--chats", type=int, default=30)
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--server", default="", help="a script that serves, given a port")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    figures: dict[str, Any] = {}
    if "intake" in args.scenes:
        figures |= asyncio.run(intake(args.count))
    wanted = [name for name in args.scenes if name != "intake"]
    if wanted:
        if args.items is None:
            raise SystemExit("--items FILE is missing: JSON Lines of {id, input}")
        with args.items.open(encoding="utf-8") as lines:
            items = [json.loads(line) for line in islice(lines, args.limit)]
        for name in wanted:
            figures |= scenes[name](args, items)
    table(
        ["figure", "value"],
        [(k, f"{v:.3f}" if isinstance(v, float) else v) for k, v in figures.items()],
    )
    report(
        figures,
        settings={"task": args.task, "items": str(args.items), "seed": args.seed, "set": args.set},
    )


if __name__ == "__main__":
    main()
