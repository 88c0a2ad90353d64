"""The policies under load, with the code that serves and a modelled engine."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from ondol.core.settings.lane_sections import LanesSettings
from ondol.lab.bench.policy_simulation import Arrival, Fate, Simulation, Speed
from ondol.runtime.generation.policy import Fifo, Policy, ShortestFirst, Slo

SPEED = Speed(per_token=0.001, step=0.008, per_request=0.003)
SLOTS = 4


def chats(count: int, *, rate: float, seed: int, deadline: float | None = 2000.0) -> list[Arrival]:
    """Poisson arrivals of skewed sizes, as chats have: most short, some very long."""
    draw = random.Random(seed)
    at, found = 0.0, []
    for _ in range(count):
        at += draw.expovariate(rate)
        prompt = min(3000, int(draw.lognormvariate(5.6, 0.8)) + 8)
        output = min(600, int(draw.lognormvariate(4.0, 0.8)) + 2)
        found.append(Arrival(at, prompt, output, deadline))
    return found


async def outcome(schedule: list[Arrival], policy: Policy, **chat: float) -> list[Fate]:
    lanes = LanesSettings.model_validate(
        {"chat": {"running": SLOTS, "queue": 25, "queue_seconds": 3600, "sla_ms": 0, **chat}}
    )
    return await Simulation(SPEED, policy=policy, slots=SLOTS, lanes=lanes).run(schedule)


async def capacity() -> float:
    jobs = [Arrival(0.0, a.prompt_tokens, a.output_tokens) for a in chats(200, rate=1.0, seed=1)]
    fates = await outcome(jobs, Fifo(), queue=1000)
    return len(fates) / max(fate.end or 0.0 for fate in fates)


def share(fates: list[Fate]) -> float:
    return sum(fate.met for fate in fates) / len(fates)


@pytest.mark.parametrize("load", [0.7, 1.0, 1.5])
async def test_work_and_slack_with_early_refusal_keeps_more_promises(load: float) -> None:
    schedule = chats(300, rate=load * await capacity(), seed=3)
    slo = await outcome(schedule, Slo())
    fifo = await outcome(schedule, Fifo())
    sjf = await outcome(schedule, ShortestFirst())

    assert share(slo) > max(share(fifo), share(sjf))
    assert share(slo) >= {0.7: 0.88, 1.0: 0.75, 1.5: 0.6}[load]
    admitted = [fate for fate in slo if fate.first_token is not None]
    assert share(admitted) >= 0.97
    assert max(fate.waited for fate in slo) <= 2.0
    assert all(fate.code for fate in slo if fate.first_token is None)


async def test_every_arrival_has_one_fate() -> None:
    schedule = chats(200, rate=3.0, seed=4)
    fates = await outcome(schedule, Slo())
    assert Counter(map(id, (fate.arrival for fate in fates))) == Counter(map(id, schedule))


async def test_the_first_token_is_foretold() -> None:
    schedule = chats(300, rate=0.9 * await capacity(), seed=5)
    errors = sorted(
        abs(fate.predicted - fate.first_token) / fate.first_token
        for fate in await outcome(schedule, Slo())
        if fate.first_token is not None and fate.predicted is not None
    )
    assert errors[len(errors) // 2] <= 0.2


async def test_a_burst_without_deadlines_serves_the_short_half_much_sooner() -> None:
    burst = [
        Arrival(0.0, a.prompt_tokens, a.output_tokens)
        for a in chats(60, rate=1.0, seed=6, deadline=None)
    ]
    slo = await outcome(burst, Slo(age_seconds=120.0), queue=100)
    fifo = await outcome(burst, Fifo(), queue=100)

    def short_half(fates: list[Fate]) -> float:
        ranked = sorted(fates, key=lambda f: f.arrival.prompt_tokens + f.arrival.output_tokens)
        firsts = sorted(fate.first_token or 0.0 for fate in ranked[:30])
        return firsts[15]

    assert short_half(slo) <= 0.4 * short_half(fifo)
    assert all(fate.first_token is not None for fate in slo)


async def test_requests_without_deadlines_get_through_lasting_overload() -> None:
    rate = 1.5 * await capacity()
    schedule = chats(300, rate=rate, seed=7) + [
        Arrival(5.0 * i, 600, 60, None, lane="batch") for i in range(5)
    ]
    fates = await outcome(schedule, Slo(age_seconds=20.0))
    batch = [fate for fate in fates if fate.arrival.lane == "batch"]
    assert [fate.code for fate in batch] == [""] * 5
    assert max(fate.waited for fate in batch) < 60.0
