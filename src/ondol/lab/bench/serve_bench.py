"""``ondol bench serve``: policy against policy under the same open-loop load, in one run.

Measures the server alone first (tokens, prefill speed, capacity), then replays one schedule for
every policy, each on a fresh and warmed-up server. Policies take turns, so that other work on the
machine hits all of them alike. How servers start is handed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from ondol.core.types import OnNote
from ondol.lab.bench.load_figures import Promise, figures
from ondol.lab.bench.load_measuring import (
    capacity,
    prefill_seconds,
    shots_now,
    tokens_within,
    yardstick_of,
)
from ondol.lab.bench.load_plan import Arrivals, LoadRun, Manner, Shot, Target, ask, leaving
from ondol.lab.bench.load_prompts import PromptMaker, Yardstick
from ondol.lab.bench.request_trace import Row, scaled, strata
from ondol.lab.evaluate.statistics import percentile

FILLERS = 2
"""Requests per slot beyond those counted: they keep the slots busy while the last ones end."""
LEAVE_WITHIN = 2.0


class Server(Protocol):
    """What is loaded: an address, and its memory where it is ours to look at."""

    @property
    def url(self) -> str: ...
    def memory_mb(self, *, peak: bool = False) -> float: ...


StartServer = Callable[[str], AbstractContextManager[Server]]
"""Starts a server with the policy named; ``ALONE`` for one that refuses nothing as late."""

ALONE = "alone"


@dataclass(frozen=True, slots=True)
class ServeLoad:
    """What is asked. ``rates`` (requests a second) beat ``loads`` (shares of the capacity).

    ``count`` requests a run, or as many as arrive in ``seconds`` where that is more than 0.
    ``median_prefill`` (seconds) sets the scale of the token counts; 0 leaves it at ``scale``.
    """

    rows: tuple[Row, ...]
    arrivals: Arrivals
    loads: tuple[float, ...] = (0.7, 0.9, 1.0)
    rates: tuple[float, ...] = ()
    count: int = 100
    seconds: float = 0.0
    scale: float = 1.0
    median_prefill: float = 0.0
    capacity_rps: float = 0.0
    capacity_requests: int = 40
    warm_up: int = 16


@dataclass(frozen=True, slots=True)
class ServeTerms:
    """Under which terms: model and slots, the promise, what clients send and how they behave."""

    model: str
    policies: tuple[str, ...]
    slots: int
    context_tokens: int
    most_output: int
    promise: Promise = field(default_factory=Promise)
    deadline_ms: float = 0.0
    retries: int = 0
    disconnect_share: float = 0.0
    timeout: float = 600.0
    seed: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KnownPolicy:
    """What was measured of the server alone, and the rows scaled to it."""

    yardstick: Yardstick
    rows: tuple[Row, ...]
    scale: float
    ladder: tuple[tuple[int, float], ...] = ()


class ServeBench:
    """One whole comparison; ``run`` returns its JSON. Raises ``BackendError``, ``ProbeFailed``."""

    def __init__(
        self, load: ServeLoad, terms: ServeTerms, *, start: StartServer, note: OnNote
    ) -> None:
        self._load = load
        self._terms = terms
        self._start = start
        self._note = note

    def run(self) -> dict[str, Any]:
        """Return ``policies``, ``runs`` (one a load and policy), ``capacity_rps`` and the scale."""
        load, terms = self._load, self._terms
        with self._start(ALONE) as server:
            target = Target(server.url, terms.model, terms.headers)
            known = self._look(target)
            rps = self._capacity(target, known)
        runs = []
        for turn, rate in enumerate(self._rates(rps)):
            shots = self._shots(known, rate, turn)
            turned = turn % len(terms.policies)
            for policy in terms.policies[turned:] + terms.policies[:turned]:
                share = f" ({rate / rps:.2f} of capacity)" if rps else ""
                self._note(f"{policy}: {len(shots)} requests, {rate:.2f} a second{share}")
                found = self._one(policy, known, shots, turn)
                runs.append({"policy": policy, "load": rate / rps if rps else None, **found})
        return {
            "model": terms.model,
            "capacity_rps": rps or None,
            "scale": known.scale,
            "prefill_alone": [{"prompt_tokens": n, "seconds": s} for n, s in known.ladder],
            "base_tokens": known.yardstick.base,
            "tokens_per_word": known.yardstick.tokens_per_word,
            "prompt_tokens_p50": percentile([row.prompt_tokens for row in known.rows], 0.5),
            "output_tokens_p50": percentile([row.output_tokens for row in known.rows], 0.5),
            "arrivals": load.arrivals.kind,
            "sla_ms": terms.promise.sla_ms,
            "deadline_ms": terms.deadline_ms,
            "slots": terms.slots,
            "seed": terms.seed,
            "policies": by_policy(runs),
            "runs": runs,
        }

    def _look(self, target: Target) -> KnownPolicy:
        load, terms = self._load, self._terms
        self._note("what a word costs in tokens")
        yardstick = yardstick_of(target)
        scale, ladder = load.scale, []
        if load.median_prefill:
            self._note("prefill speed alone")
            ladder = prefill_seconds(
                target, yardstick, context_tokens=terms.context_tokens, seed=terms.seed
            )
            median = percentile([row.prompt_tokens for row in load.rows], 0.5)
            scale = tokens_within(ladder, load.median_prefill) / median
        rows = scaled(
            load.rows,
            scale=scale,
            context_tokens=terms.context_tokens,
            most_output=terms.most_output,
        )
        return KnownPolicy(yardstick, rows, scale, tuple(ladder))

    def _capacity(self, target: Target, known: KnownPolicy) -> float:
        load, terms = self._load, self._terms
        self._warm_up(target, known)
        if load.capacity_rps or load.rates or load.arrivals.kind == "burst":
            return load.capacity_rps
        counted = load.capacity_requests
        self._note(f"capacity: {counted} requests, {terms.slots} at a time")
        rows = strata(known.rows, count=counted, seed=terms.seed)
        more = strata(known.rows, count=FILLERS * terms.slots, seed=terms.seed + 1)
        shots = shots_now(self._maker(known), [*rows, *more], first=8_000_000)
        return capacity(target, shots, slots=terms.slots, counted=counted)

    def _rates(self, rps: float) -> tuple[float, ...]:
        load = self._load
        if load.arrivals.kind == "burst":
            return load.rates[:1] or (float(load.arrivals.size or load.count),)
        return load.rates or tuple(share * rps for share in load.loads)

    def _shots(self, known: KnownPolicy, rate: float, turn: int) -> list[Shot]:
        """Return the schedule that every policy replays at this rate."""
        load, terms = self._load, self._terms
        count = math.ceil(rate * load.seconds) if load.seconds else load.count
        rows = [known.rows[index % len(known.rows)] for index in range(count)]
        times = load.arrivals.times(rows, rate=rate)
        leaves = leaving(
            count, share=terms.disconnect_share, within=LEAVE_WITHIN, seed=terms.seed + turn
        )
        maker = self._maker(known)
        return [
            Shot(at, row, maker.messages(row, number=turn * 100_000 + index), leave_after)
            for index, (at, row, leave_after) in enumerate(zip(times, rows, leaves, strict=True))
        ]

    def _one(
        self, policy: str, known: KnownPolicy, shots: Sequence[Shot], turn: int
    ) -> dict[str, Any]:
        terms = self._terms
        with self._start(policy) as server:
            target = Target(server.url, terms.model, terms.headers)
            self._warm_up(target, known, turn=turn + 1)
            before = server.memory_mb()
            manner = Manner(retries=terms.retries, timeout=terms.timeout)
            run = ask(target.with_deadline(terms.deadline_ms), shots, manner)
            memory = {
                "before": before,
                "after": server.memory_mb(),
                "peak": server.memory_mb(peak=True),
            }
        found = figures(run.seen, terms.promise, retries=terms.retries)
        return {**found, "memory_mb": memory, **_client(run)}

    def _warm_up(self, target: Target, known: KnownPolicy, *, turn: int = 0) -> None:
        if count := self._load.warm_up:
            rows = strata(known.rows, count=count, seed=self._terms.seed + turn)
            shots = shots_now(self._maker(known), rows, first=7_000_000 + turn * 1000)
            ask(target, shots, Manner(concurrency=self._terms.slots))

    def _maker(self, known: KnownPolicy) -> PromptMaker:
        return PromptMaker(known.yardstick, seed=self._terms.seed, scale=known.scale)


def by_policy(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return each policy's figures at its heaviest load, and its attainment at every load."""
    found: dict[str, dict[str, Any]] = {}
    for policy in dict.fromkeys(run["policy"] for run in runs):
        mine = sorted(
            (run for run in runs if run["policy"] == policy), key=lambda run: run["load"] or 0.0
        )
        found[policy] = {
            **mine[-1],
            "attainment_by_load": [
                {"load": run["load"], "attainment_offered": run["attainment_offered"]}
                for run in mine
            ],
        }
    return found


def _client(run: LoadRun) -> dict[str, float]:
    return {"client_cpu_share": run.client_cpu_seconds / max(run.seconds, 1e-9)}
