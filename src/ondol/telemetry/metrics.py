"""Prometheus metrics behind the ``Observer`` protocol.

Names, labels and buckets stand in one table (``TABLE``). Each ``Metrics`` has its own registry, so
that two servers in one process do not share counts. Series of known lanes exist before the first
request, so that a rate over them starts at zero. Thread-safe.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ondol.core.observe import (
    BatchBudgetChanged,
    BatchRun,
    CacheTierChanged,
    CandidateCompared,
    CitationsVerified,
    DocumentIngested,
    EmbeddingsLookedUp,
    Event,
    FormFellBack,
    ModelStateChanged,
    RequestFinished,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LANES = ("ask", "batch", "chat", "embeddings", "rerank", "search")
OUTCOMES = ("ok", "refused", "failed", "cancelled", "deadline")
MODEL_STATES = ("cold", "loading", "starting", "ready", "restarting", "failed", "closed")

_WAIT = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_WORK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_AGREEMENT = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 1.0)
_SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)


@dataclass(frozen=True, slots=True)
class Series:
    """One row of the table: what is measured, in which unit, split by which labels."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    before: tuple[Mapping[str, str], ...] = ()


def _lanes(**extra: Sequence[str]) -> tuple[Mapping[str, str], ...]:
    rows: list[dict[str, str]] = [{"lane": lane} for lane in LANES]
    for label, values in extra.items():
        rows = [{**row, label: value} for row in rows for value in values]
    return tuple(rows)


TABLE: tuple[Series, ...] = (
    Series(
        "ondol_requests",
        "counter",
        "Requests by lane and how they ended.",
        ("lane", "outcome"),
        before=_lanes(outcome=OUTCOMES),
    ),
    Series(
        "ondol_request_queue_seconds",
        "histogram",
        "Time a request waited before its work began.",
        ("lane",),
        _WAIT,
        _lanes(),
    ),
    Series(
        "ondol_request_inference_seconds",
        "histogram",
        "Time a request spent in a model.",
        ("lane",),
        _WORK,
        _lanes(),
    ),
    Series(
        "ondol_request_total_seconds",
        "histogram",
        "Time from admission to the end of a request.",
        ("lane",),
        _WORK,
        _lanes(),
    ),
    Series(
        "ondol_first_token_seconds",
        "histogram",
        "Time to the first generated token.",
        ("lane",),
        _WORK,
        ({"lane": "ask"}, {"lane": "chat"}),
    ),
    Series(
        "ondol_tokens",
        "counter",
        "Tokens read (in), generated (out) and found in the prompt cache (cached).",
        ("lane", "direction"),
        before=_lanes(direction=("in", "out", "cached")),
    ),
    Series(
        "ondol_batches",
        "counter",
        "Encoder batches by how they ended.",
        ("model", "outcome"),
    ),
    Series(
        "ondol_batch_tokens",
        "histogram",
        "Tokens in one encoder batch, padding included.",
        ("model",),
        _TOKENS,
    ),
    Series(
        "ondol_batch_padding_ratio",
        "histogram",
        "Share of a batch's tokens that is padding.",
        ("model",),
        _SHARES,
    ),
    Series(
        "ondol_batch_seconds",
        "histogram",
        "Time of one encoder batch in the model.",
        ("model",),
        _WORK,
    ),
    Series(
        "ondol_batch_budget_ratio",
        "gauge",
        "Share of the token budget a batch may use: below 1 while memory is short, absent until then.",
        ("model",),
    ),
    Series(
        "ondol_batch_budget_changes",
        "counter",
        "Changes of a batch's token budget, by what led to them.",
        ("model", "reason"),
    ),
    Series(
        "ondol_model_state",
        "gauge",
        "1 for the state a model is in, 0 for the others.",
        ("model", "state"),
    ),
    Series(
        "ondol_form_fallbacks",
        "counter",
        "Loads in which a form failed and the reference form took its place.",
        ("model", "wanted"),
    ),
    Series(
        "ondol_ab_requests",
        "counter",
        "Requests an A/B candidate ran beside (shadowed), answered, dropped as busy, or failed.",
        ("component", "candidate", "outcome"),
    ),
    Series(
        "ondol_ab_seconds",
        "histogram",
        "Tokenising and inference of one compared request, by side; the queue is not in it.",
        ("component", "side"),
        _WORK,
    ),
    Series(
        "ondol_ab_agreement",
        "histogram",
        "How far the candidate agrees, one request: least cosine, or Kendall's tau.",
        ("component", "candidate"),
        _AGREEMENT,
    ),
    Series(
        "ondol_embedding_cache_texts",
        "counter",
        "Distinct texts to embed, by where the vector was found; joined: another request's work.",
        ("found",),
        before=tuple({"found": found} for found in ("memory", "durable", "joined", "nowhere")),
    ),
    Series("ondol_embedding_cache_entries", "gauge", "Vectors held.", ("tier",)),
    Series("ondol_embedding_cache_bytes", "gauge", "Bytes held.", ("tier",)),
    Series(
        "ondol_embedding_cache_on", "gauge", "1 while the tier is in use, 0 while not.", ("tier",)
    ),
    Series(
        "ondol_embedding_cache_losses",
        "counter",
        "Vectors evicted, dropped because too many waited to be written, and failed look-ups.",
        ("tier", "kind"),
    ),
    Series("ondol_generator_restarts", "counter", "Restarts of the generator process."),
    Series(
        "ondol_documents",
        "counter",
        "Documents that went through ingest, by outcome.",
        ("outcome",),
        before=tuple(
            {"outcome": outcome}
            for outcome in ("added", "updated", "unchanged", "failed", "deleted")
        ),
    ),
    Series("ondol_chunks", "counter", "Chunks embedded and stored."),
    Series(
        "ondol_citations",
        "counter",
        "Citations of answers: verified, or dropped because the quote does not stand there.",
        ("outcome",),
        before=({"outcome": "verified"}, {"outcome": "dropped"}),
    ),
)


class Metrics:
    """An ``Observer`` that counts; ``render`` gives the Prometheus text format."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=True)
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        for series in TABLE:
            self._create(series)
        self._registry.register(_Process())

    def observe(self, event: Event) -> None:
        match event:
            case RequestFinished():
                self._request(event)
            case BatchRun() | BatchBudgetChanged():
                self._batch(event)
            case ModelStateChanged():
                self._model(event)
            case FormFellBack(model=model, wanted=wanted):
                self._counters["ondol_form_fallbacks"].labels(model=model, wanted=wanted).inc()
            case CandidateCompared():
                self._compared(event)
            case EmbeddingsLookedUp() | CacheTierChanged():
                self._cache(event)
            case DocumentIngested(outcome=outcome, chunks=chunks):
                self._counters["ondol_documents"].labels(outcome=outcome).inc()
                if outcome in {"added", "updated"}:
                    self._counters["ondol_chunks"].inc(chunks)
            case CitationsVerified(verified, dropped):
                citations = self._counters["ondol_citations"]
                citations.labels(outcome="verified").inc(verified)
                citations.labels(outcome="dropped").inc(dropped)

    def render(self) -> bytes:
        """Return every series in the Prometheus text format, UTF-8."""
        return generate_latest(self._registry)

    def _create(self, series: Series) -> None:
        made: Counter | Gauge | Histogram
        if series.kind == "counter":
            made = self._counters[series.name] = Counter(
                series.name, series.help, series.labels, registry=self._registry
            )
        elif series.kind == "gauge":
            made = self._gauges[series.name] = Gauge(
                series.name, series.help, series.labels, registry=self._registry
            )
        else:
            made = self._histograms[series.name] = Histogram(
                series.name,
                series.help,
                series.labels,
                registry=self._registry,
                buckets=series.buckets,
            )
        for labels in series.before:
            made.labels(**labels)

    def _request(self, event: RequestFinished) -> None:
        lane, timing = event.lane, event.timing
        self._counters["ondol_requests"].labels(lane=lane, outcome=event.outcome).inc()
        self._time("ondol_request_queue_seconds", timing.queue_ms, lane=lane)
        self._time("ondol_request_total_seconds", timing.total_ms, lane=lane)
        tokens = self._counters["ondol_tokens"]
        tokens.labels(lane=lane, direction="in").inc(event.tokens_in)
        tokens.labels(lane=lane, direction="out").inc(event.tokens_out)
        tokens.labels(lane=lane, direction="cached").inc(event.tokens_cached)
        inference = timing.inference_ms or timing.prefill_ms + timing.decode_ms
        if inference:
            self._time("ondol_request_inference_seconds", inference, lane=lane)
        if timing.ttft_ms:
            self._time("ondol_first_token_seconds", timing.ttft_ms, lane=lane)

    def _batch(self, event: BatchRun | BatchBudgetChanged) -> None:
        if isinstance(event, BatchBudgetChanged):
            share = event.tokens / event.full_tokens
            self._gauges["ondol_batch_budget_ratio"].labels(model=event.model).set(share)
            changes = self._counters["ondol_batch_budget_changes"]
            changes.labels(model=event.model, reason=event.reason).inc()
            return
        outcome = "failed" if event.failed else "ok"
        self._counters["ondol_batches"].labels(model=event.model, outcome=outcome).inc()
        self._histograms["ondol_batch_seconds"].labels(model=event.model).observe(event.seconds)
        if event.padded_tokens > 0:
            self._histograms["ondol_batch_tokens"].labels(model=event.model).observe(
                event.padded_tokens
            )
            self._histograms["ondol_batch_padding_ratio"].labels(model=event.model).observe(
                1 - event.tokens / event.padded_tokens
            )

    def _model(self, event: ModelStateChanged) -> None:
        gauge = self._gauges["ondol_model_state"]
        for state in dict.fromkeys((*MODEL_STATES, event.state)):
            gauge.labels(model=event.model, state=state).set(state == event.state)
        if event.state == "restarting":
            self._counters["ondol_generator_restarts"].inc()

    def _compared(self, event: CandidateCompared) -> None:
        names = {"component": event.component, "candidate": event.candidate}
        self._counters["ondol_ab_requests"].labels(**names, outcome=event.outcome).inc()
        sides = {"primary": event.primary_seconds, "candidate": event.candidate_seconds}
        for side, seconds in sides.items():
            if seconds is not None:
                self._histograms["ondol_ab_seconds"].labels(
                    component=event.component, side=side
                ).observe(seconds)
        if event.agreement is not None:
            self._histograms["ondol_ab_agreement"].labels(**names).observe(event.agreement)

    def _cache(self, event: EmbeddingsLookedUp | CacheTierChanged) -> None:
        if isinstance(event, EmbeddingsLookedUp):
            texts = self._counters["ondol_embedding_cache_texts"]
            places = (event.memory, event.durable, event.joined, event.misses)
            for found, count in zip(
                ("memory", "durable", "joined", "nowhere"), places, strict=True
            ):
                if count:
                    texts.labels(found=found).inc(count)
            return
        for name, now in (("entries", event.entries), ("bytes", event.bytes), ("on", event.on)):
            self._gauges[f"ondol_embedding_cache_{name}"].labels(tier=event.tier).set(now)
        lost = {"evicted": event.evicted, "dropped": event.dropped, "failed": event.errors}
        for kind, count in lost.items():
            self._counters["ondol_embedding_cache_losses"].labels(tier=event.tier, kind=kind).inc(
                count
            )

    def _time(self, name: str, milliseconds: float, *, lane: str) -> None:
        self._histograms[name].labels(lane=lane).observe(milliseconds / 1e3)


class _Process(Collector):
    """Memory of this process, read when asked for."""

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "ondol_process_resident_bytes",
            "Resident memory of the server process; the generator's process is not in it.",
            value=_resident_bytes(),
        )


def _resident_bytes() -> float:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return float("nan")
    return float(pages * os.sysconf("SC_PAGE_SIZE"))
