"""What a run amounts to: shares that met the promise, percentiles, refusals, by size.

Every request that was offered is in the denominator, refusals and errors too; all times count from
the scheduled send. Intervals are a bootstrap over blocks of neighbouring requests, because those
queue together (Künsch 1989); seeded. Pure: the client's records in, figures out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from ondol.lab.bench.load_exchange import Outcome
from ondol.lab.bench.request_trace import Row
from ondol.lab.evaluate.statistics import percentile

RESAMPLES = 1000
LEVEL = 0.95
DECILES = 10


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as the client saw it; seconds from the run's start, ``first`` the first token.

    ``refusals`` holds each try's (seconds to the answer, status, code, Retry-After or ``None``).
    """

    row: Row
    at: float
    late: float
    first: float | None
    last: float | None
    end: float
    outcome: Outcome
    status: int
    code: str = ""
    finish: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    gaps: tuple[float, ...] = ()
    refusals: tuple[Refusal, ...] = ()

    @classmethod
    def of(cls, record: Mapping[str, Any], row: Row) -> Self:
        """Return what one of the client's records says."""
        usage = record["usage"]
        return cls(
            row=row,
            **{key: record[key] for key in ("at", "late", "first", "last", "end")},
            **{key: record[key] for key in ("outcome", "status", "code", "finish")},
            prompt_tokens=usage.get("prompt_tokens", 0),
            cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
            completion_tokens=usage.get("completion_tokens", 0),
            gaps=tuple(record["gaps"]),
            refusals=tuple(Refusal(**refusal) for refusal in record["refusals"]),
        )

    @property
    def ttft(self) -> float | None:
        """Seconds from the scheduled send to the first token."""
        return None if self.first is None else self.first - self.at

    @property
    def tpot(self) -> float | None:
        """Seconds a token after the first."""
        if self.first is None or self.last is None or self.completion_tokens < 2:
            return None
        return (self.last - self.first) / (self.completion_tokens - 1)

    @property
    def wait(self) -> float:
        """Seconds from the scheduled send to the first token, or to whatever came in its place."""
        return self.end - self.at if self.ttft is None else self.ttft

    def met(self, sla: float) -> bool:
        """Whether it was answered in full, its first token within ``sla`` seconds."""
        return self.outcome == "ok" and self.ttft is not None and self.ttft <= sla


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refusal: when that try began and when its answer came, in seconds of the run."""

    status: int
    code: str
    retry_after: float | None
    begun: float
    head: float


@dataclass(frozen=True, slots=True)
class Promise:
    """What counts as met: first token within ``sla_ms``; ``seed`` is the bootstrap's."""

    sla_ms: float = 2000.0
    seed: int = 0
    resamples: int = field(default=RESAMPLES)


def figures(seen: Sequence[Seen], promise: Promise, *, retries: int = 0) -> dict[str, Any]:
    """Return the contract's keys of ``bench serve`` for one run, and what stands beside them.

    Requests whose client left by design count as offered, but for no attainment.
    """
    sla = promise.sla_ms / 1e3
    outcomes = Counter(one.outcome for one in seen)
    stayed = [one for one in seen if one.outcome != "left"]
    admitted = [one for one in stayed if one.outcome != "refused"]
    met = sum(one.met(sla) for one in seen)
    seconds = max((one.end for one in seen), default=0.0) - min(
        (one.at for one in seen), default=0.0
    )
    found = {
        "offered": len(seen),
        "completed": outcomes["ok"],
        "rejected": outcomes["refused"],
        "failed": outcomes["failed"] + outcomes["timeout"],
        "left": outcomes["left"],
        "met": met,
        "seconds": seconds,
        "goodput_rps": met / seconds if seconds else 0.0,
        "throughput_rps": outcomes["ok"] / seconds if seconds else 0.0,
        "attainment_offered": met / len(stayed) if stayed else 0.0,
        "attainment_admitted": met / len(admitted) if admitted else 0.0,
        **_waits(seen),
        **_tokens(seen, seconds),
        **_refusals(seen),
        "lateness_p99_ms": percentile([one.late for one in seen], 0.99) * 1e3,
        "lateness_max_ms": max((one.late for one in seen), default=0.0) * 1e3,
        "failures": dict(Counter(one.code or one.outcome for one in seen if _failed(one))),
        "by_size": by_size(stayed, sla),
        "ci95": intervals(stayed, promise),
    }
    if retries:
        tries = Counter(len(one.refusals) + 1 for one in stayed if one.outcome == "ok")
        found["served_within_tries"] = sum(tries.values()) / len(stayed) if stayed else 0.0
        found["served_at_try"] = {str(number): tries[number] for number in sorted(tries)}
    return found


def by_size(seen: Sequence[Seen], sla: float) -> dict[str, Any]:
    """Return TTFT and attainment of the short half, and of each decile by prompt tokens."""
    ordered = sorted(seen, key=lambda one: one.row.prompt_tokens)
    if not ordered:
        return {}
    parts = [part for part in np.array_split(np.arange(len(ordered)), DECILES) if len(part)]
    deciles = [_size_row([ordered[at] for at in part], sla) for part in parts]
    return {"short_half": _size_row(ordered[: max(1, len(ordered) // 2)], sla), "deciles": deciles}


def intervals(seen: Sequence[Seen], promise: Promise) -> dict[str, list[float]]:
    """Return 95 % intervals of the shares and of TTFT's p50 and p99 (ms)."""
    if len(seen) < 2:
        return {}
    ordered = sorted(seen, key=lambda one: one.at)
    sla = promise.sla_ms / 1e3
    met = np.array([one.met(sla) for one in ordered], dtype=float)
    let_in = np.array([one.outcome != "refused" for one in ordered], dtype=float)
    first = np.array([np.nan if one.ttft is None else one.ttft * 1e3 for one in ordered])
    picks = _blocks(len(ordered), promise)
    measures: dict[str, Callable[[Any], float]] = {
        "attainment_offered": lambda pick: float(met[pick].mean()),
        "attainment_admitted": lambda pick: float(
            (met[pick] * let_in[pick]).sum() / max(1.0, let_in[pick].sum())
        ),
        "ttft_p50_ms": lambda pick: _nan_quantile(first[pick], 0.5),
        "ttft_p99_ms": lambda pick: _nan_quantile(first[pick], 0.99),
    }
    tails = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    return {
        name: [percentile([measure(pick) for pick in picks], tail) for tail in tails]
        for name, measure in measures.items()
    }


def _blocks(count: int, promise: Promise) -> list[Any]:
    """Return index arrays: blocks of neighbours, drawn with replacement around the run's circle."""
    length = max(1, round(count ** (1 / 3)))
    chance = np.random.default_rng(promise.seed)
    draws = -(-count // length)
    starts = chance.integers(0, count, size=(promise.resamples, draws))
    every = (starts[:, :, None] + np.arange(length)) % count
    return list(every.reshape(promise.resamples, -1)[:, :count])


def _nan_quantile(values: Any, share: float) -> float:
    known = values[~np.isnan(values)]
    return float(np.quantile(known, share)) if len(known) else 0.0


def _waits(seen: Sequence[Seen]) -> dict[str, float]:
    first = [one.ttft * 1e3 for one in seen if one.ttft is not None]
    token = [one.tpot * 1e3 for one in seen if one.tpot is not None]
    gaps = [gap * 1e3 for one in seen for gap in one.gaps]
    return {
        **{f"ttft_p{p}_ms": percentile(first, p / 100) for p in (50, 90, 95, 99)},
        "tpot_p50_ms": percentile(token, 0.5),
        "tpot_p99_ms": percentile(token, 0.99),
        "itl_p50_ms": percentile(gaps, 0.5),
        "itl_p99_ms": percentile(gaps, 0.99),
        "max_wait_ms": max((one.wait * 1e3 for one in seen if one.outcome != "left"), default=0.0),
    }


def _tokens(seen: Sequence[Seen], seconds: float) -> dict[str, Any]:
    """Return tokens wanted and got of what was completed: models may stop early."""
    done = [one for one in seen if one.outcome == "ok"]
    got = sum(one.completion_tokens for one in done)
    return {
        "prompt_tokens_wanted": sum(one.row.prompt_tokens for one in done),
        "prompt_tokens_got": sum(one.prompt_tokens for one in done),
        "cached_tokens": sum(one.cached_tokens for one in done),
        "completion_tokens_wanted": sum(one.row.output_tokens for one in done),
        "completion_tokens_got": got,
        "stopped_early": sum(one.finish == "stop" for one in done),
        "output_tokens_per_second": got / seconds if seconds else 0.0,
    }


def _refusals(seen: Sequence[Seen]) -> dict[str, Any]:
    """Return how many tries were refused, why, and how soon.

    The first try of a request counts from its schedule, later ones from when they began.
    """
    every = [(one, number, told) for one in seen for number, told in enumerate(one.refusals)]
    waits = [told.head - (told.begun if number else one.at) for one, number, told in every]
    told_of = [told for _, _, told in every]
    return {
        "refusals": len(told_of),
        "refusals_by_code": dict(Counter(f"{told.status} {told.code}" for told in told_of)),
        "refusal_p50_ms": percentile(waits, 0.5) * 1e3,
        "refusal_p99_ms": percentile(waits, 0.99) * 1e3,
        "refusal_p99_from_send_ms": percentile([told.head - told.begun for told in told_of], 0.99)
        * 1e3,
        "retry_after_missing": sum(told.retry_after is None for told in told_of),
        "retry_after_p50_s": percentile(
            [told.retry_after for told in told_of if told.retry_after is not None], 0.5
        ),
    }


def _size_row(seen: Sequence[Seen], sla: float) -> dict[str, Any]:
    first = [one.ttft * 1e3 for one in seen if one.ttft is not None]
    return {
        "offered": len(seen),
        "prompt_tokens_from": seen[0].row.prompt_tokens,
        "prompt_tokens_to": seen[-1].row.prompt_tokens,
        "attainment_offered": sum(one.met(sla) for one in seen) / len(seen),
        "rejected": sum(one.outcome == "refused" for one in seen),
        "ttft_p50_ms": percentile(first, 0.5),
        "ttft_p99_ms": percentile(first, 0.99),
        "max_wait_ms": max(one.wait * 1e3 for one in seen),
    }


def _failed(one: Seen) -> bool:
    return one.outcome in ("failed", "timeout")
