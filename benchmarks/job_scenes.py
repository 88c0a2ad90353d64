"""Two scenes of the benchmark of jobs: one call against one by one, and kill -9 in the middle.

Each takes the options and the items and returns figures; ``batch`` leaves the job's results in
``args.measured``. How far results must be equal: item by item, all but times. At temperature 0 two
runs may still word an answer differently, because which requests are computed together changes the
last bits of sums; ``only_wording`` counts where nothing else differs.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import httpx
from common import working_home
from job_items import Items
from job_server import (
    Audit,
    Line,
    Server,
    code_of,
    compared,
    follow,
    hand_in,
    results,
    served,
    tokens_of,
)

KEPT = "cache.embeddings=sqlite"
"""Both runs of ``kills`` take their vectors from the same file, so that they differ in nothing else."""
OF_JOBS = frozenset({"duplicate_id", "unknown_field", "invalid_id"})


def batch(args: argparse.Namespace, items: Items) -> dict[str, Any]:
    """One call against one request after the other, each on a fresh server of an empty home."""
    seconds: dict[str, list[float]] = {"alone": [], "together": []}
    lines: dict[str, list[Line]] = {}
    for turn in range(args.turns):
        for side in ("alone", "together") if turn % 2 == 0 else ("together", "alone"):
            with served(args, working_home("jobs")) as server:
                warm(server, args.task)
                before = time.perf_counter()
                work = one_by_one if side == "alone" else as_job
                lines[side] = work(server.http, args.task, items)
                seconds[side].append(time.perf_counter() - before)
    if args.keep:
        args.keep.write_text("".join(json.dumps(one) + "\n" for one in lines["together"]), "utf-8")
    args.measured = lines["together"]
    alone, together = (statistics.median(seconds[side]) for side in ("alone", "together"))
    good = {side: [one for one in lines[side] if one["ordinal"] not in items.bad] for side in lines}
    same = compared(good["alone"], good["together"])
    return {
        "items": len(items.rows),
        "one_by_one_seconds": alone,
        "job_seconds": together,
        "speedup": alone / together,
        "turns": seconds,
        "one_by_one_requests": len(lines["alone"]),
        "job_requests": 3,  # handing in, events, results
        "one_by_one_codes": Counter(filter(None, map(code_of, lines["alone"]))),
        "one_by_one_tokens": tokens_of(lines["alone"]),
        "job_tokens": tokens_of(lines["together"]),
        **poison(lines["together"], items),
        **{f"against_one_by_one_{name}": value for name, value in same.items()},
    }


def warm(server: Server, task: str) -> None:
    """Have every model used once before anything is timed."""
    if task.startswith("reviews."):
        server.http.post(f"/v1/tasks/{task}", json={"input": {"reviews": [{"text": "맛있어요"}]}})


def one_by_one(http: httpx.Client, task: str, items: Items) -> list[Line]:
    """Work the items as one does without jobs: a request each, the next when the last is answered.

    Items that only a job finds fault with are left out, else this side would have more to do.
    """
    lines: list[Line] = []
    for ordinal, item in enumerate(items.rows):
        if items.bad.get(ordinal) in OF_JOBS:
            continue
        response = http.post(f"/v1/tasks/{task}", json={"input": item.get("input")})
        status = "done" if response.status_code == 200 else "failed"
        lines.append({"ordinal": ordinal, "status": status, **response.json()})
    return lines


def as_job(http: httpx.Client, task: str, items: Items) -> list[Line]:
    """Hand all items in at once, wait, read the results."""
    job = hand_in(http, task, items.rows)
    follow(http, job)
    return results(http, job)


def poison(lines: Sequence[Line], items: Items) -> dict[str, Any]:
    """Return whether exactly the bad items failed, and each for its reason."""
    failed = {one["ordinal"]: code_of(one) for one in lines if one["status"] == "failed"}
    return {
        "done": sum(one["status"] == "done" for one in lines),
        "poisoned": len(items.bad),
        "failed": len(failed),
        "exactly_those": failed.keys() == items.bad.keys(),
        "right_reasons": failed == items.bad,
        "reasons": Counter(failed.values()),
    }


def kills(args: argparse.Namespace, items: Items) -> dict[str, Any]:
    """Kill the server ``args.kills`` times in the middle; the results must be an undisturbed run's."""
    home = working_home("jobs-killed")
    with served(args, home, KEPT) as server:
        calm = as_job(server.http, args.task, items)
    audit = Audit(home)
    # Of the bad items most have failed when the job is taken: they are no moment to kill at.
    first, last = len(items.bad) + 1, len(items.rows)
    chance = random.Random(args.seed)
    marks = sorted(chance.sample(range(first, last), min(args.kills, last - first)))
    job, killed = "", []
    for mark in marks:
        server = Server(home, script=args.server, over=[KEPT, *args.set])
        job = job or hand_in(server.http, args.task, items.rows)
        view = follow(server.http, job, until=mark)
        server.stop(signal.SIGKILL)
        killed.append({key: view[key] for key in ("done", "failed", "running", "queued")})
    with served(args, home, KEPT) as server:
        follow(server.http, job)
        disturbed = results(server.http, job)
    return {
        "kills": len(killed),
        "killed_at": killed,
        "lost": len({one["ordinal"] for one in calm} - {one["ordinal"] for one in disturbed}),
        **audit.figures(job),
        **compared(calm, disturbed),
        **{f"killed_{name}": value for name, value in poison(disturbed, items).items()},
    }
