"""The policies over a modelled engine with the speeds that ``ondol bench serve`` measured, in seconds.

Reads the JSON of ``ondol bench serve --trace … --median-prefill-seconds …``, fits the prefill speed to
its ladder and replays its very schedules (the same sizes at the same times) through the serving code
(``Simulation``); the real run's shares stand beside, and the least and most over other arrival times.
Run: ``python benchmarks/simulated_policies.py FILE TRACE``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import report, table

from ondol.core.settings.lane_sections import LanesSettings
from ondol.lab.bench.load_plan import Arrivals
from ondol.lab.bench.policy_simulation import Arrival, Simulation, Speed
from ondol.lab.bench.request_trace import Row, read_trace, scaled
from ondol.runtime.generation.policy import policy_of

Schedule = Sequence[Arrival]

CONTEXT_TOKENS, MOST_OUTPUT = 4096, 1024
"""The defaults of ``generation.context_tokens`` and ``generation.max_tokens``."""


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


def schedule(rows: Sequence[Row], *, rate: float, seed: int, least: int, sla: float) -> Schedule:
    """Return the rows of the trace as ``bench serve`` sends them, Poisson at ``rate`` a second."""
    times = Arrivals(seed=seed).times(rows, rate=rate)
    return [
        Arrival(at, max(least, row.prompt_tokens), row.output_tokens, sla)
        for at, row in zip(times, rows, strict=True)
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
    count = found["runs"][0]["offered"]
    sent = scaled(
        read_trace(said.trace)[:count],
        scale=found["scale"],
        context_tokens=CONTEXT_TOKENS,
        most_output=MOST_OUTPUT,
    )
    rows = []
    for run in found["runs"]:
        shares = []
        for seed in range(found["seed"], found["seed"] + said.schedules):
            simulation = Simulation(
                speed,
                policy=policy_of(run["policy"], age_seconds=30),
                slots=slots,
                lanes=lanes(slots=slots, queue=25, sla_ms=sla),
            )
            rate = run["load"] * found["capacity_rps"]
            coming = schedule(sent, rate=rate, seed=seed, least=found["base_tokens"], sla=sla)
            fates = asyncio.run(simulation.run(coming))
            shares.append(sum(fate.met for fate in fates) / len(fates))
        rows.append(
            {
                "policy": run["policy"],
                "load": run["load"],
                "simulated": shares[0],
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
