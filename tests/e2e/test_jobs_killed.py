"""A job whose server is killed again and again: every item ends once, as if nothing had happened."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from tests.e2e.command import READY, Command, Running

from ondol.jobs.work import FAKE_TASK

ITEMS = 60
CONCURRENCY = 4


@contextmanager
def server(root: Path, home: Path) -> Iterator[tuple[Running, httpx.Client]]:
    """Run the server until the block ends, at the latest."""
    environ = {
        **Command(root, home).environ,
        "PYTHONPATH": str(root),
        "ONDOL_JOBS_CONCURRENCY": str(CONCURRENCY),
        "ONDOL_SERVER_DRAIN_SECONDS": "5",
    }
    line = [sys.executable, str(root / "tests" / "e2e" / "jobs_server.py"), "0"]
    process = subprocess.Popen(
        line,
        cwd=root,
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    with Running(process) as running:
        url = running.wait_for(READY).group(1)
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
            yield running, http


def the_items() -> list[dict[str, Any]]:
    """Items of five prefixes, every twentieth poisoned, every thirtieth equal to another."""
    return [
        {
            "id": f"r{n}",
            "input": {
                "text": f"{'poison' if n % 20 == 7 else 'item'} {n if n % 30 else 0}",
                "shared": f"p{n % 5}",
            },
        }
        for n in range(ITEMS)
    ]


def hand_in(http: httpx.Client) -> str:
    response = http.post("/v1/jobs", json={"task": FAKE_TASK, "items": the_items()})
    assert response.status_code == 202, response.text
    job: str = response.json()["id"]
    return job


def until(http: httpx.Client, job: str, ended: int) -> dict[str, Any]:
    """Follow the job until so many items have ended."""
    with http.stream("GET", f"/v1/jobs/{job}/events") as events:
        for line in events.iter_lines():
            if line.startswith("data: "):
                view: dict[str, Any] = json.loads(line.removeprefix("data: "))
                if view["done"] + view["failed"] >= ended:
                    return view
    raise AssertionError("the events ended too early")


def outcomes(http: httpx.Client, job: str) -> list[dict[str, Any]]:
    """Return the results without what two runs may differ in."""
    lines = [json.loads(line) for line in http.get(f"/v1/jobs/{job}/results").text.splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_kill_9_loses_no_item_and_ends_none_twice(root: Path, tmp_path: Path) -> None:
    chance = random.Random(6)
    marks = sorted(chance.sample(range(5, ITEMS - 8), 3))
    with server(root, tmp_path) as (running, http):
        job = hand_in(http)
        until(http, job, marks[0])
        running.stop(signal.SIGKILL, code=-signal.SIGKILL)
    with server(root, tmp_path) as (running, http):
        assert until(http, job, marks[1])["total"] == ITEMS
        running.stop(signal.SIGKILL, code=-signal.SIGKILL)
    with server(root, tmp_path) as (running, http):
        until(http, job, marks[2])
        running.stop(signal.SIGKILL, code=-signal.SIGKILL)
    with server(root, tmp_path) as (running, http):
        view = until(http, job, ITEMS)
        disturbed = outcomes(http, job)
        runs = Counter((tmp_path / "worked.log").read_text("utf-8").splitlines())
        calm = hand_in(http)
        until(http, calm, ITEMS)
        assert disturbed == outcomes(http, calm)
        running.stop(signal.SIGTERM, code=0)
    assert (view["state"], view["running"], view["queued"]) == ("done", 0, 0)
    assert view["errors"] == {"poisoned": len([n for n in range(ITEMS) if n % 20 == 7])}
    assert [line["id"] for line in disturbed] == [f"r{n}" for n in range(ITEMS)]
    distinct = {item["input"]["text"] for item in the_items()}
    assert set(runs) == distinct
    assert sum(runs.values()) <= len(distinct) + 3 * CONCURRENCY
