"""The policies over a modelled engine with the speeds that ``ondol bench serve`` measured, in seconds.

Reads the JSON of ``ondol bench serve --trace … --median-prefill-seconds …``, fits the prefill speed to
its ladder, draws the same sizes from the trace and runs the serving code (``Simulation``) at the same
loads; the real run's shares stand beside. Run: ``python benchmarks/simulated_policies.py FILE TRACE``.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import report, table

from ondol.core.lanes import LanesSettings
from ondol.engine.policy import policy_of
from ondol.services.bench.simulation import Arrival, Simulation, Speed

Sizes = Sequence[tuple[int, int]]


def speed_of(found: dict[str, Any], *, step: float, per_request: float) -> Speed:
    """Fit seconds = a·n + b·n²/2 to the prefill ladder by least relative squares."""
    tokens = np.array([row["prompt_tokens"] for row in found["prefill_alone"]], float)
    seconds = np.array([row["seconds"] for row in found["prefill_alone"]])
    design = np.stack([tokens, tokens**2 / 2], axis=1) / seconds[:, None]
    a, b = np.linalg.lstsq(design, np.ones(len(seconds)), rcond=None)[0]
    return Speed(
        per_token=max(float(a), 1e-6),
        per_pair=max(float(b), 0.0),
        step=step,
        per_request=per_request,
        chunk=96,
    )


def sizes(trace: Path, scale: float, count: int, seed: int, least: int) -> Sizes:
    draw = random.Random(seed)
    with trace.open(encoding="utf-8") as file:
        rows = [(int(r["ContextTokens"]), int(r["GeneratedTokens"])) for r in csv.DictReader(file)]
    return [
        (min(3900, max(least, round(prompt * scale))), max(1, round(answer * scale)))
        for prompt, answer in (draw.choice(rows) for _ in range(count))
    ]


def lanes(*, slots: int, queue: int, sla_ms: float) -> LanesSettings:
    return LanesSettings.model_validate(
        {"chat": {"running": slots, "queue": queue, "sla_ms": sla_ms, "queue_seconds": 36_000}}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--step", type=float, default=0.009, help="seconds a decode step takes")
    parser.add_argument("--per-request", type=float, default=0.003, help="and more a request in it")
    parser.add_argument("--schedules", type=int, default=5)
    said = parser.parse_args()
    found = json.loads(said.file.read_text("utf-8"))
    speed = speed_of(found, step=said.step, per_request=said.per_request)
    slots, sla = found["slots"], found["sla_ms"]
    drawn = [
        sizes(said.trace, found["scale"], found["runs"][0]["offered"], seed, found["base_tokens"])
        for seed in range(said.schedules)
    ]
    everything = [Arrival(0.0, *size) for size in drawn[0]]
    alone = Simulation(
        speed,
        policy=policy_of("fifo", age_seconds=30),
        slots=slots,
        lanes=lanes(slots=slots, queue=10_000, sla_ms=0),
    )
    done = asyncio.run(alone.run(everything))
    capacity = len(done) / max(fate.end or 0.0 for fate in done)
    rows = []
    for run in found["runs"]:
        shares = []
        for seed, mine in enumerate(drawn):
            chance, at, schedule = random.Random(seed), 0.0, []
            for prompt, answer in mine:
                at += chance.expovariate(run["load"] * capacity)
                schedule.append(Arrival(at, prompt, answer, sla))
            simulation = Simulation(
                speed,
                policy=policy_of(run["policy"], age_seconds=30),
                slots=slots,
                lanes=lanes(slots=slots, queue=25, sla_ms=sla),
            )
            fates = asyncio.run(simulation.run(schedule))
            shares.append(sum(fate.met for fate in fates) / len(fates))
        rows.append(
            {
                "policy": run["policy"],
                "load": run["load"],
                "simulated": statistics.mean(shares),
                "least": min(shares),
                "most": max(shares),
                "real": run["attainment_offered"],
            }
        )
    rows.sort(key=lambda row: (row["load"], row["policy"]))
    table(
        ("policy", "load", "simulated", "least to most", "real", "difference"),
        [
            (
                row["policy"],
                f"{row['load']:.2f}",
                f"{row['simulated']:.2f}",
                f"{row['least']:.2f}–{row['most']:.2f}",
                f"{row['real']:.2f}",
                f"{row['simulated'] - row['real']:+.2f}",
            )
            for row in rows
        ],
    )
    report(
        {"benchmark": "simulated_policies", "baseline": "the real run", "rows": rows},
        settings={"file": said.file.name, "step": said.step, "per_request": said.per_request},
    )


if __name__ == "__main__":
    main()
