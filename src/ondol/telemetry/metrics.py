"""Prometheus metrics behind the ``Observer`` protocol.

Counts events into the series of ``series.TABLE``; what is looked up instead of counted comes from
``readings``. Each ``Metrics`` has its own registry, so that two servers in one process do not share
counts. Thread-safe.

Everyone in a server who listens to events, as one ``Observer``: metrics, goodput, log, tracing.

Built from the settings; the recorder is not among them, because it must be closed before the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from ondol.core.clock import Clock
from ondol.core.events import (
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
    Observer,
    Observers,
    PressureChanged,
    RequestFinished,
)
from ondol.core.settings.lane_sections import LANES
from ondol.core.settings.operation_sections import TelemetrySettings
from ondol.telemetry.goodput import Goodput
from ondol.telemetry.logs import RequestLog
from ondol.telemetry.readings import JOBS, Readings, ReadingSources
from ondol.telemetry.series import MODEL_STATES, MODELS, REQUESTS, STATE, Series
from ondol.telemetry.tracing import Tracing

__all__ = ["CONTENT_TYPE", "LANES", "TABLE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
TABLE: tuple[Series, ...] = (*REQUESTS, *STATE, *MODELS, *JOBS)


class Metrics:
    """An ``Observer`` that counts; ``render`` gives the Prometheus text format.

    ``sources`` says where lanes, goodput, usage and the recorder are read; set them any time.
    """

    def __init__(self, sources: ReadingSources | None = None) -> None:
        self.sources = sources or ReadingSources()
        self._registry = CollectorRegistry(auto_describe=True)
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        # Series of labels seen before: looking them up anew costs most of an event's time.
        self._counted: dict[tuple[str, ...], Counter] = {}
        self._timed: dict[tuple[str, ...], Histogram] = {}
        for series in TABLE:
            if not series.read:
                self._create(series)
        self._gauges["ondol_concurrency_ratio"].set(1)
        self._readings = Readings(self.sources)

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
            case PressureChanged(level=level, concurrency=concurrency):
                self._count("ondol_pressure_changes", level)
                self._gauges["ondol_concurrency_ratio"].set(concurrency)
            case DocumentIngested() | CitationsVerified():
                self._documents(event)

    def look(self) -> list[Metric]:
        """Return what the sources say now; cheap, and to be called where they may be read."""
        return list(self._readings.collect())

    def render(self, looked: Sequence[Metric] | None = None) -> bytes:
        """Return every series in the Prometheus text format, UTF-8.

        Takes some 10 ms of processor and reads the store; a server looks first and renders in a
        thread, so that nothing waits.
        """
        looked = self.look() if looked is None else looked
        stored = list(self._readings.stored())
        return generate_latest(_Joined(self._registry, [*looked, *stored]))

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
        self._count("ondol_requests", lane, event.outcome)
        if event.outcome == "refused":
            self._count("ondol_refusals", lane, event.code or "refused")
        self._promise(event)
        self._time("ondol_request_queue_seconds", timing.queue_ms, lane)
        self._time("ondol_request_total_seconds", timing.total_ms, lane)
        tokens_in, cached = event.tokens_in, event.tokens_cached
        directions = {"in": tokens_in, "out": event.tokens_out, "cached": cached}
        for direction, tokens in directions.items():
            if tokens:
                self._count("ondol_tokens", lane, direction, by=tokens)
        inference = timing.inference_ms or timing.prefill_ms + timing.decode_ms
        for name, milliseconds in (
            ("ondol_request_inference_seconds", inference),
            ("ondol_first_token_seconds", timing.ttft_ms),
            ("ondol_time_per_output_token_seconds", timing.tpot_ms),
            ("ondol_inter_token_median_seconds", timing.itl_p50_ms),
            ("ondol_inter_token_tail_seconds", timing.itl_p99_ms),
        ):
            if milliseconds:
                self._time(name, milliseconds, lane)
        if event.generated:
            self._count("ondol_prompt_tokens", lane, "cached", by=cached)
            self._count("ondol_prompt_tokens", lane, "computed", by=max(0, tokens_in - cached))

    def _promise(self, event: RequestFinished) -> None:
        """Count how the deadline went, and how far off the prediction was."""
        met = event.deadline_met
        if met is not None:
            result = "met" if met else "refused" if event.outcome == "refused" else "missed"
            self._count("ondol_deadlines", event.lane, result)
        real = event.timing.ttft_ms
        if event.generated and event.predicted_ms is not None and real:
            error = abs(event.predicted_ms - real) / real
            self._histogram("ondol_first_token_error_ratio", event.lane).observe(error)

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

    def _documents(self, event: DocumentIngested | CitationsVerified) -> None:
        if isinstance(event, CitationsVerified):
            self._count("ondol_citations", "verified", by=event.verified)
            self._count("ondol_citations", "dropped", by=event.dropped)
            return
        self._count("ondol_documents", event.outcome)
        if event.outcome in {"added", "updated"}:
            self._counters["ondol_chunks"].inc(event.chunks)

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

    def _count(self, name: str, *values: str, by: float = 1) -> None:
        key = (name, *values)
        series = self._counted.get(key)
        if series is None:
            series = self._counted[key] = self._counters[name].labels(*values)
        series.inc(by)

    def _histogram(self, name: str, *values: str) -> Histogram:
        key = (name, *values)
        series = self._timed.get(key)
        if series is None:
            series = self._timed[key] = self._histograms[name].labels(*values)
        return series

    def _time(self, name: str, milliseconds: float, *values: str) -> None:
        self._histogram(name, *values).observe(milliseconds / 1e3)


class _Joined(Collector):
    """What was counted, then what was looked up."""

    def __init__(self, counted: Collector, looked: Sequence[Metric]) -> None:
        self._counted = counted
        self._looked = looked

    def collect(self) -> Iterator[Metric]:
        yield from self._counted.collect()
        yield from self._looked


class Listeners:
    """Raises ``SettingsError`` where an endpoint is set and the extra ``otel`` is missing."""

    def __init__(self, settings: TelemetrySettings, *, clock: Clock) -> None:
        self.goodput = Goodput(clock=clock)
        self.metrics = Metrics(ReadingSources(goodput=self.goodput.snapshot))
        self._tracing = (
            Tracing.to(settings.otlp_endpoint, clock=clock) if settings.otlp_endpoint else None
        )
        wanted: list[Observer] = [self.metrics, self.goodput]
        if settings.log_requests:
            wanted.append(RequestLog())
        if self._tracing is not None:
            wanted.append(self._tracing)
        self._all = Observers(*wanted)

    def observe(self, event: Event) -> None:
        self._all.observe(event)

    def close(self) -> None:
        """Send what tracing still holds; blocks for some seconds at most."""
        if self._tracing is not None:
            self._tracing.close()
