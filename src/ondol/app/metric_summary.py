"""What the kept metrics say of a period: rates, promises kept, first tokens, the cache.

Reads the store's totals and derives the rest; nothing here writes. Shares are ``None`` where there
was nothing to take a share of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ondol.telemetry.metric_rows import Group, MetricStore, MetricTotals

_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One group of requests. Rates are per second of its part of the period; times milliseconds.

    ``offered`` = ``admitted`` + ``rejected``. ``attainment_offered`` counts a refusal as a broken
    promise, ``attainment_admitted`` leaves refusals out; ``sla_compliance_rate`` is the former.
    """

    group: str | int
    seconds: float
    offered: int
    admitted: int
    completed: int
    rejected: int
    failed: int
    cancelled: int
    timed_out: int
    throughput_rps: float
    goodput_rps: float
    attainment_offered: float | None
    attainment_admitted: float | None
    sla_compliance_rate: float | None
    queue_p50_ms: float | None
    queue_p95_ms: float | None
    total_p50_ms: float | None
    total_p95_ms: float | None
    ttft_p50_ms: float | None
    ttft_p95_ms: float | None
    ttft_p99_ms: float | None
    tpot_p50_ms: float | None
    tokens_in: int
    tokens_out: int
    cached_share: float | None


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """The period ``[since, until)`` in Unix seconds, all requests in it, the groups, the refusals."""

    since: float
    until: float
    by: Group
    total: SummaryRow | None
    groups: list[SummaryRow]
    refusals: Mapping[str, int]


def summarise(store: MetricStore, *, since: float, until: float, by: Group) -> MetricSummary:
    """Return what was recorded between ``since`` and ``until``, as a whole and by group."""
    whole = [_row(totals, until - since) for totals in store.totals(since=since, until=until)]
    groups: list[SummaryRow] = []
    if by != "all":
        for totals in store.totals(since=since, until=until, by=by):
            start, end = since, until
            if isinstance(totals.key, int):
                start, end = max(since, totals.key), min(until, totals.key + _HOUR)
            groups.append(_row(totals, end - start))
    return MetricSummary(
        since=since,
        until=until,
        by=by,
        total=whole[0] if whole else None,
        groups=groups,
        refusals=store.refusals(since=since, until=until),
    )


def _row(totals: MetricTotals, seconds: float) -> SummaryRow:
    attained = _share(totals.kept, totals.promised)
    return SummaryRow(
        group=totals.key,
        seconds=seconds,
        offered=totals.requests,
        admitted=totals.requests - totals.refused,
        completed=totals.ok,
        rejected=totals.refused,
        failed=totals.failed,
        cancelled=totals.cancelled,
        timed_out=totals.deadline,
        throughput_rps=totals.ok / seconds,
        goodput_rps=totals.kept / seconds,
        attainment_offered=attained,
        attainment_admitted=_share(totals.kept, totals.promised_admitted),
        sla_compliance_rate=attained,
        queue_p50_ms=_percentile(totals, "queue_ms", "p50"),
        queue_p95_ms=_percentile(totals, "queue_ms", "p95"),
        total_p50_ms=_percentile(totals, "total_ms", "p50"),
        total_p95_ms=_percentile(totals, "total_ms", "p95"),
        ttft_p50_ms=_percentile(totals, "ttft_ms", "p50"),
        ttft_p95_ms=_percentile(totals, "ttft_ms", "p95"),
        ttft_p99_ms=_percentile(totals, "ttft_ms", "p99"),
        tpot_p50_ms=_percentile(totals, "tpot_ms", "p50"),
        tokens_in=totals.tokens_in,
        tokens_out=totals.tokens_out,
        cached_share=_share(totals.cached_tokens, totals.prompt_tokens),
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _percentile(totals: MetricTotals, name: str, which: str) -> float | None:
    found = totals.percentiles.get(name)
    return None if found is None else float(getattr(found, which))
