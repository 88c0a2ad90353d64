"""A server in hard times: ten times too many requests, clients that leave, a generator that is killed.

Each scenario starts a server of its own with only a generator and says what must hold: every refusal
a 429 or 503 with ``Retry-After``, memory flat, what was accepted ends, no slot lost, the service back.
Run: ``python benchmarks/hard_times.py [overload leaving kills] [--quick] [--model ID]``.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from common import report, table

from ondol.core.settings import load_settings
from ondol.lab.bench.load_figures import Seen
from ondol.lab.bench.load_measuring import capacity, shots_now, yardstick_of
from ondol.lab.bench.load_plan import Manner, Shot, Target, ask, leaving
from ondol.lab.bench.load_prompts import PromptMaker
from ondol.lab.bench.request_trace import Row
from ondol.lab.bench.server_child import ServerChild, only_generator

SLOTS = 4
DEADLINE_MS = 2000.0
MIX = ((60, 8), (60, 24), (120, 24), (240, 32))


@dataclass
class Memory:
    """Samples of a server's resident memory, one a second, until the block ends."""

    server: ServerChild
    samples: list[float] = field(default_factory=list)

    def __enter__(self) -> Memory:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(1.0):
            self.samples.append(self.server.memory_mb())

    def figures(self) -> dict[str, float]:
        """First and last tenth, and the most, in MB."""
        tenth = max(1, len(self.samples) // 10)
        return {
            "memory_first_mb": statistics.median(self.samples[:tenth]),
            "memory_last_mb": statistics.median(self.samples[-tenth:]),
            "memory_most_mb": max(self.samples),
        }


class Scene:
    """One server, what its texts cost in tokens, and how to ask it."""

    def __init__(self, server: ServerChild, *, model: str, seed: int) -> None:
        self.server = server
        self.target = Target(server.url, model)
        self.maker = PromptMaker(yardstick_of(self.target), seed=seed)
        self.chance = random.Random(seed)
        self._asked = 0

    def shots(self, rows: Sequence[tuple[int, int]], rate: float = 0.0) -> list[Shot]:
        """Return requests of these sizes, Poisson at ``rate`` a second, or all at once."""
        made = shots_now(self.maker, [Row(0.0, *row) for row in rows], first=self._asked)
        self._asked += len(rows)
        at, found = 0.0, []
        for shot in made:
            at += self.chance.expovariate(rate) if rate else 0.0
            found.append(Shot(at, shot.row, shot.messages))
        return found

    def mixed(self, count: int) -> list[tuple[int, int]]:
        return [self.chance.choice(MIX) for _ in range(count)]

    def warm_up(self) -> None:
        ask(self.target, self.shots(self.mixed(12)), Manner(concurrency=2))

    def lone_ttft(self) -> float:
        """Return the median seconds to the first token of a short request that is alone."""
        seen = ask(self.target, self.shots([(60, 4)] * 7), Manner(concurrency=1)).seen
        return statistics.median(one.ttft or 0.0 for one in seen)

    def lanes(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.server.url}/v1/lanes", timeout=30).json()
        return found


def overload(scene: Scene, *, seconds: float) -> dict[str, Any]:
    """Ask for ten times what the server can do, then stop and look how soon it is well again."""
    scene.warm_up()
    alone = scene.lone_ttft()
    able = capacity(scene.target, scene.shots(scene.mixed(40)), slots=SLOTS, counted=32)
    rate = 10 * able
    shots = scene.shots(scene.mixed(int(rate * seconds)), rate)
    with Memory(scene.server) as memory:
        run = ask(scene.target.with_deadline(DEADLINE_MS), shots)
    recovery = _recovery(scene, alone)
    return {
        "capacity_rps": able,
        "offered_rps": rate,
        **_fates(run.seen),
        **memory.figures(),
        "recovery_seconds": recovery,
        "left_waiting": scene.lanes()["generator"]["depth"],
        "left_running": scene.lanes()["generator"]["running"],
    }


def _recovery(scene: Scene, alone: float) -> float:
    """Return the seconds until a short request is served as quickly as before (twice as long at most)."""
    began = time.monotonic()
    while True:
        (one,) = ask(scene.target.with_deadline(DEADLINE_MS), scene.shots([(60, 4)])).seen
        if one.outcome == "ok" and (one.ttft or 9.0) <= 2 * alone + 0.05:
            return time.monotonic() - began
        if time.monotonic() - began > 60:
            return float("inf")


def _fates(seen: Sequence[Seen]) -> dict[str, Any]:
    refusals = [refusal for one in seen for refusal in one.refusals]
    at_once = [r.head - r.begun for r in refusals if r.code != "deadline_lapsed"]
    met = [one for one in seen if one.outcome == "ok" and (one.ttft or 99.0) * 1e3 <= DEADLINE_MS]
    return {
        "offered": len(seen),
        "outcomes": dict(Counter(one.outcome for one in seen)),
        "failures": dict(
            Counter(
                f"{one.status} {one.code}" for one in seen if one.outcome not in ("ok", "refused")
            )
        ),
        "met": len(met),
        "refusals_by_code": dict(Counter(f"{r.status} {r.code}" for r in refusals)),
        "without_retry_after": sum(r.retry_after is None for r in refusals),
        "refusal_at_admission_p50_ms": _percentile(at_once, 0.50),
        "refusal_at_admission_p99_ms": _percentile(at_once, 0.99),
        "longest_wait_s": max(one.wait for one in seen),
    }


def _percentile(seconds: Sequence[float], share: float) -> float:
    ranked = sorted(seconds)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))] * 1e3 if ranked else 0.0


def leave(scene: Scene, *, count: int) -> dict[str, Any]:
    """Half of the clients leave within a second, in the queue, in prefill or in mid-answer."""
    scene.warm_up()
    rows = [(48, 16)] * count
    before = capacity(scene.target, scene.shots([(48, 16)] * 40), slots=SLOTS, counted=32)
    when = leaving(count, share=0.5, within=1.0, seed=1)
    shots = [
        Shot(shot.at, shot.row, shot.messages, leave_after)
        for shot, leave_after in zip(scene.shots(rows, 1.3 * before), when, strict=True)
    ]
    with Memory(scene.server) as memory:
        run = ask(scene.target, shots)
    time.sleep(1.0)
    now = scene.lanes()["generator"]
    after = capacity(scene.target, scene.shots([(48, 16)] * 40), slots=SLOTS, counted=32)
    return {
        "left": sum(moment is not None for moment in when),
        **_fates(run.seen),
        **memory.figures(),
        "capacity_before_rps": before,
        "capacity_after_rps": after,
        "slots_still_taken": now["running"],
        "still_waiting": now["depth"],
    }


def kill(scene: Scene, *, times: int) -> dict[str, Any]:
    """Kill the generator's process again and again while six clients ask."""
    scene.warm_up()
    stop = threading.Event()
    seen: list[Seen] = []

    def load() -> None:
        while not stop.is_set():
            shots = scene.shots(scene.mixed(60))
            seen.extend(ask(scene.target, shots, Manner(concurrency=6, retries=0)).seen)

    thread = threading.Thread(target=load)
    thread.start()
    back = []
    for _ in range(times):
        time.sleep(scene.chance.uniform(1.0, 3.0))
        for pid in _generators(scene.server.pid):
            os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        time.sleep(0.1)
        back.append(_until_ready(scene.server.url) - killed)
    stop.set()
    thread.join()
    (last,) = ask(scene.target, scene.shots([(60, 4)])).seen
    return {
        "kills": times,
        **_fates(seen),
        "back_after_p50_s": statistics.median(back),
        "back_after_most_s": max(back),
        "answers_at_the_end": last.outcome == "ok",
        "slots_still_taken": scene.lanes()["generator"]["running"],
    }


def _until_ready(url: str) -> float:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if httpx.get(f"{url}/health/ready", timeout=30).status_code == 200:
            break
        time.sleep(0.02)
    return time.monotonic()


def _generators(pid: int) -> list[int]:
    """Return the processes under the server's that run llama.cpp."""
    found, waiting = [], [pid]
    while waiting:
        current = waiting.pop()
        tasks = Path(f"/proc/{current}/task")
        try:
            children = [
                int(child)
                for task in tasks.iterdir()
                for child in (task / "children").read_text().split()
            ]
        except OSError:
            continue
        waiting += children
        found += [c for c in children if b"llama" in Path(f"/proc/{c}/cmdline").read_bytes()]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    names = ("overload", "leaving", "kills")
    parser.add_argument("scenes", nargs="*", default=names, help=", ".join(names))
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    said = parser.parse_args()
    quick = said.quick
    plays = {
        "overload": lambda scene: overload(scene, seconds=10 if quick else 180),
        "leaving": lambda scene: leave(scene, count=60 if quick else 2000),
        "kills": lambda scene: kill(scene, times=2 if quick else 20),
    }
    settings = load_settings()
    over = only_generator(settings, model=said.model, slots=SLOTS, policy="slo")
    found: dict[str, Any] = {}
    for name in said.scenes:
        with ServerChild(settings, over) as server:
            found[name] = plays[name](Scene(server, model=said.model, seed=said.seed))
        table(("figure", "value"), [(key, str(value)) for key, value in found[name].items()])
    report(
        {"benchmark": "hard_times", "baseline": "the same server before", **found},
        settings={"model": said.model, "slots": SLOTS, "seed": said.seed, "quick": quick},
    )


if __name__ == "__main__":
    main()
