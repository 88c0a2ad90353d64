"""A server of its own for the benchmark of jobs: started, asked, killed; and what its items came to.

``Audit`` counts in the server's own database how often an outcome was written for each item: what a
result list cannot show, since an item has one row whatever happens.
"""

from __future__ import annotations

import argparse
import atexit
import json
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
from common import command, environment

READY = re.compile(r"ondol is ready on (http://\S+)")
LOOK_SECONDS = 0.2
WORDED = frozenset({"summary", "strengths"})
"""Results that the generator wrote; the others are counted from the texts."""

Line = Mapping[str, Any]


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
        atexit.register(self._process.kill)  # also where the benchmark is stopped
        self._said: list[str] = []
        url = ""
        for said in self._process.stderr or ():
            self._said = [*self._said[-20:], said]
            if found := READY.search(said):
                url = found[1]
                break
        if not url:
            raise SystemExit("the server did not start:\n" + "".join(self._said))
        threading.Thread(target=self._forget, daemon=True).start()
        self.http = httpx.Client(base_url=url, timeout=None, trust_env=False)
        while self.http.get("/health/ready").status_code != 200:
            time.sleep(LOOK_SECONDS)

    def stop(self, number: signal.Signals) -> None:
        """Send the signal and wait for the end."""
        self._process.send_signal(number)
        self._process.wait()
        self.http.close()

    def _forget(self) -> None:
        for _ in self._process.stderr or ():
            pass


@contextmanager
def served(args: argparse.Namespace, home: Path, *over: str) -> Iterator[Server]:
    """Yield a server with ``args.set`` and ``over``, which comes first."""
    server = Server(home, script=args.server, over=[*over, *args.set])
    try:
        yield server
    finally:
        server.stop(signal.SIGTERM)


def hand_in(http: httpx.Client, task: str, items: Sequence[Any]) -> str:
    """Hand in a job and return its id."""
    response = http.post("/v1/jobs", json={"task": task, "items": list(items)})
    if response.status_code != 202:
        raise SystemExit(f"the job was not taken: {response.text[:400]}")
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


def results(http: httpx.Client, job: str) -> list[Line]:
    """Return a line an item that has an outcome."""
    return [json.loads(line) for line in http.get(f"/v1/jobs/{job}/results").text.splitlines()]


def code_of(line: Line) -> str:
    """Return why an item failed; empty where it did not."""
    return str((line.get("error") or {}).get("code", ""))


def tokens_of(lines: Sequence[Line]) -> dict[str, int]:
    """Return the tokens that all items took together."""
    kinds = ("prompt_tokens", "cached_tokens", "completion_tokens")
    return {kind: sum((one.get("usage") or {}).get(kind, 0) for one in lines) for kind in kinds}


def compared(calm: Sequence[Line], other: Sequence[Line]) -> dict[str, Any]:
    """Return how far two runs of the same items came to the same, without times.

    ``only_wording`` of the ``differing`` items have equal counts, labels and representatives, and
    differ in what the generator wrote.
    """
    first, second = _by_ordinal(calm), _by_ordinal(other)
    both = first.keys() & second.keys()
    differing = [n for n in both if _outcome(first[n]) != _outcome(second[n])]
    wording = [n for n in differing if _counted(first[n]) == _counted(second[n])]
    return {
        "equal": first.keys() == second.keys() and not differing,
        "differing": len(differing),
        "only_wording": len(wording),
        "statuses_equal": {n: _fate(one) for n, one in first.items()}
        == {n: _fate(one) for n, one in second.items()},
    }


def _by_ordinal(lines: Sequence[Line]) -> dict[int, Line]:
    return {one["ordinal"]: one for one in lines}


def _fate(line: Line) -> tuple[str, str]:
    return line["status"], code_of(line)


def _outcome(line: Line) -> Any:
    return (*_fate(line), line.get("result"))


def _counted(line: Line) -> Any:
    kept = {k: v for k, v in (line.get("result") or {}).items() if k not in WORDED}
    return (*_fate(line), kept)


class Audit:
    """Counts the outcomes written to the items of the home at ``home``, by a trigger of its own."""

    def __init__(self, home: Path) -> None:
        self._path = home / "ondol.db"
        with closing(sqlite3.connect(self._path, timeout=30)) as connection, connection:
            connection.execute("CREATE TABLE bench_outcomes(job INTEGER, ordinal INTEGER)")
            connection.execute(
                "CREATE TRIGGER bench_outcome AFTER UPDATE OF state ON job_items "
                "WHEN NEW.state IN ('done', 'failed') BEGIN "
                "INSERT INTO bench_outcomes VALUES (NEW.job, NEW.ordinal); END"
            )

    def figures(self, job: str) -> dict[str, int]:
        """Return how many items of ``job`` got an outcome twice, and were taken up again."""
        mine = "job = (SELECT number FROM jobs WHERE id = ?)"
        with closing(sqlite3.connect(self._path, timeout=30)) as connection:
            twice = connection.execute(
                f"SELECT count(*) FROM (SELECT 1 FROM bench_outcomes WHERE {mine} "
                "GROUP BY ordinal HAVING count(*) > 1)",
                (job,),
            ).fetchone()[0]
            again = connection.execute(
                f"SELECT count(*) FROM job_items WHERE {mine} AND losses > 0", (job,)
            ).fetchone()[0]
        return {"twice": twice, "taken_up_again": again}
