"""Jobs: handing in ten thousand items, one call instead of many, killed servers, people meanwhile.

``intake`` needs no model. ``batch``, ``kills`` and ``people`` start servers of their own and work all
shared restaurants by ``reviews.summary``, or ``--items`` (JSON Lines of ``{"id", "input"}``) by
``--task``: against the same items one by one, with kill -9 in the middle against an undisturbed run,
and with a chat every few seconds beside the job. ``--poison 0.05`` makes so many items bad in the
first two. ``simulated`` works items of the sizes that ``batch`` (or ``--sizes``) measured on a modelled
engine of more slots. Lanes that refuse what takes longer than they promise need ``--set``:

    python benchmarks/jobs.py batch simulated --poison 0.05 --keep sizes.jsonl \
        --set lanes.reviews.sla_ms=600000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from common import report, table, working_home
from job_items import Items, from_file, poisoned, restaurants
from job_scenes import batch, kills
from job_server import hand_in, served
from job_simulation import Rates, Size, simulated

from ondol.app.store_assembly import MIGRATIONS
from ondol.core.clock import SystemClock
from ondol.core.settings.operation_sections import JobSettings
from ondol.jobs.feed import JobFeed
from ondol.jobs.intake import SubmittedItem
from ondol.jobs.job_service import JobService
from ondol.jobs.job_store import JobStore
from ondol.jobs.work import FAKE_TASK, FakeWork
from ondol.store.database import Database

TASK = "reviews.summary"
CHAT_SECONDS = 3.0


async def intake(count: int) -> dict[str, Any]:
    """Hand in ``count`` items, list, look, read."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder) / "ondol.db", migrations=MIGRATIONS, clock=SystemClock())
        store = JobStore(database)
        service = JobService(
            store, FakeWork(), settings=JobSettings(), clock=SystemClock(), feed=JobFeed()
        )
        given = [
            SubmittedItem(input={"text": f"리뷰 {n} " * 20, "shared": str(n % 7)})
            for n in range(count)
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


def people(args: argparse.Namespace, items: Items) -> dict[str, Any]:
    """Chat every few seconds, without the job and beside it."""
    with served(args, working_home("jobs-people")) as server:
        chat(server.http, 3, args, series="warm")
        quiet = chat(server.http, args.chats, args, series="quiet")
        job = hand_in(server.http, args.task, items.rows)
        beside = chat(server.http, args.chats, args, series="beside")
        view = server.http.get(f"/v1/jobs/{job}").json()
        server.http.delete(f"/v1/jobs/{job}")
    return {
        "ttft_p95_quiet_s": quiet[int(0.95 * len(quiet))],
        "ttft_p95_beside_s": beside[int(0.95 * len(beside))],
        "ttft_ratio": beside[int(0.95 * len(beside))] / quiet[int(0.95 * len(quiet))],
        "ttft_p50_quiet_s": statistics.median(quiet),
        "ttft_p50_beside_s": statistics.median(beside),
        "ttft_quiet_s": [round(one, 3) for one in quiet],
        "ttft_beside_s": [round(one, 3) for one in beside],
        "items_ended_meanwhile": view["done"] + view["failed"],
        "job_still_open": view["finished"] is None,
    }


def chat(http: httpx.Client, count: int, args: argparse.Namespace, *, series: str) -> list[float]:
    """Return the seconds to the first token of ``count`` chats, ascending."""
    chance, seconds = random.Random(f"{args.seed} {series}"), []
    for number in range(count):
        time.sleep(chance.expovariate(1 / CHAT_SECONDS))
        question = f"{series} {number}: " + " ".join(
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


def engine(args: argparse.Namespace) -> dict[str, Any]:
    """Work items of measured sizes on the modelled engine; what was cached then is cached there."""
    if args.sizes:
        args.measured = [json.loads(line) for line in args.sizes.read_text("utf-8").splitlines()]
    usages = [one["usage"] for one in args.measured if one["status"] == "done"]
    if not usages:
        raise SystemExit("no sizes: run the scene batch before, or give --sizes FILE of its --keep")
    sizes = [
        Size(one["prompt_tokens"] - one["cached_tokens"], one["completion_tokens"])
        for one in usages
    ]
    pairs = (pair.split(":") for pair in args.streams.split(","))
    rates = Rates(args.prefill, {int(streams): float(rate) for streams, rate in pairs})
    return simulated(sizes, rates, slots=args.slots)


def options() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    scenes = ["intake", *_SERVED, "simulated"]
    parser.add_argument("scenes", nargs="*", default=["intake"], choices=scenes)
    parser.add_argument("--task", default=TASK)
    parser.add_argument("--items", type=Path, help="JSON Lines of {id, input}")
    parser.add_argument("--least", type=int, default=1, help="reviews of a restaurant")
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--poison", type=float, default=0.0, help="share of bad items, 0 to 1")
    parser.add_argument("--count", type=int, default=10_000, help="items of the scene intake")
    parser.add_argument("--turns", type=int, default=1, help="of batch; the order alternates")
    parser.add_argument("--keep", type=Path, help="where batch writes the job's results")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--chats", type=int, default=30)
    parser.add_argument("--sizes", type=Path, help="results of a job, for simulated")
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument(
        "--streams",
        default="1:33,2:60,4:103,8:157",
        help="tokens/s of all streams together; qwen2.5-coder-0.5b, OpenVINO GenAI, 2 cores",
    )
    parser.add_argument("--prefill", type=float, default=526.0, help="tokens/s, of the same")
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--server", default="", help="a script that serves, given a port")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.set_defaults(measured=[])
    return parser.parse_args()


_SERVED = {"batch": batch, "kills": kills, "people": people}


def main() -> None:
    args = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    figures: dict[str, Any] = {}
    if "intake" in args.scenes:
        figures |= asyncio.run(intake(args.count))
    wanted = [name for name in _SERVED if name in args.scenes]
    if wanted:
        rows = (
            from_file(args.items, limit=args.limit)
            if args.items
            else restaurants(least=args.least, limit=args.limit)
        )
        good, bad = Items(rows), poisoned(rows, args.poison, task=args.task, seed=args.seed)
        for name in wanted:
            figures |= _SERVED[name](args, good if name == "people" else bad)
    if "simulated" in args.scenes:
        figures |= engine(args)
    table(
        ["figure", "value"],
        [(k, f"{v:.3f}" if isinstance(v, float) else v) for k, v in figures.items()],
    )
    named = ("task", "items", "least", "limit", "poison", "turns", "streams", "prefill", "seed")
    report(
        figures,
        settings={name: str(getattr(args, name)) for name in named} | {"set": args.set},
    )


if __name__ == "__main__":
    main()
