"""One OpenTelemetry span per request, in the words of the GenAI semantic conventions.

Off unless an endpoint is set; the SDK (extra ``otel``) is imported only then, and its global state
is left alone. Spans go out from a thread of the SDK, bounded: what does not fit is dropped. They
carry codes, counts and times, never text. Conventions: github.com/open-telemetry/
semantic-conventions-genai (``gen_ai.*``); what they have no word for is ``ondol.*``.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from ondol.core.clock import Clock
from ondol.core.errors import SettingsError
from ondol.core.events import Event, RequestFinished
from ondol.core.extras import install_command

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.export import SpanExporter

_OPERATIONS = {"embeddings": "embeddings", "rerank": "rerank", "search": "embeddings"}
_PHASES = ("queue_ms", "tokenize_ms", "retrieve_ms", "prefill_ms", "decode_ms", "tpot_ms")
TIMEOUT_SECONDS = 5.0

Value = str | bool | int | float


class Tracing:
    """An ``Observer`` that makes spans; ``close`` sends what waits.

    Raises ``SettingsError`` where the extra is missing. ``clock`` gives the spans' times (wall).
    """

    def __init__(self, processor: SpanProcessor, *, clock: Clock) -> None:
        _require_extra()
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace import SpanKind, Status, StatusCode

        self._clock = clock
        self._server = SpanKind.SERVER
        self._error = Status(StatusCode.ERROR)
        self._provider = TracerProvider(
            resource=Resource.create(
                {"service.name": "ondol", "service.version": version("ondol")}
            ),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("ondol", version("ondol"))

    @classmethod
    def to(cls, endpoint: str, *, clock: Clock) -> Tracing:
        """Return tracing that sends to the collector at ``endpoint`` (its base URL) over HTTP."""
        _require_extra()
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        url = endpoint.rstrip("/")
        if not url.endswith("/v1/traces"):
            url += "/v1/traces"
        return cls(_batching(OTLPSpanExporter(url, timeout=TIMEOUT_SECONDS)), clock=clock)

    def observe(self, event: Event) -> None:
        """Make the span of a finished request; hands it over and returns."""
        if not isinstance(event, RequestFinished):
            return
        end = round(self._clock.wall() * 1e9)
        start = end - round(event.timing.total_ms * 1e6)
        span = self._tracer.start_span(
            f"{_operation(event)} {event.model}".strip(),
            kind=self._server,
            start_time=start,
            attributes=attributes_of(event),
        )
        if event.timing.ttft_ms:
            span.add_event("first token", timestamp=start + round(event.timing.ttft_ms * 1e6))
        if event.outcome in ("refused", "failed", "deadline"):
            span.set_status(self._error)
        span.end(end_time=end)

    def close(self) -> None:
        """Send what waits, at most for some seconds, and stop."""
        self._provider.shutdown()


def attributes_of(event: RequestFinished) -> dict[str, Value]:
    """Return the span's attributes; times to the first token in seconds, as the conventions say."""
    timing = event.timing
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": _operation(event),
        "gen_ai.provider.name": "ondol",
        "gen_ai.request.model": event.model,
        "gen_ai.usage.input_tokens": event.tokens_in,
        "ondol.lane": event.lane,
        "ondol.outcome": event.outcome,
        "ondol.request_id": timing.request_id,
    }
    if event.generated:
        attributes["gen_ai.usage.output_tokens"] = event.tokens_out
        attributes["gen_ai.usage.cache_read.input_tokens"] = event.tokens_cached
    if timing.ttft_ms:
        attributes["gen_ai.response.time_to_first_chunk"] = timing.ttft_ms / 1e3
        attributes["gen_ai.server.time_to_first_token"] = timing.ttft_ms / 1e3
    if timing.tpot_ms:
        attributes["gen_ai.server.time_per_output_token"] = timing.tpot_ms / 1e3
    if event.outcome in ("refused", "failed", "deadline"):
        attributes["error.type"] = event.code or event.outcome
    if event.form:
        attributes["ondol.form"] = event.form
    attributes |= {f"ondol.{name}": ms for name in _PHASES if (ms := getattr(timing, name))}
    for name in ("deadline_ms", "deadline_met", "predicted_ms"):
        value: float | bool | None = getattr(event, name)
        if value is not None:
            attributes[f"ondol.{name}"] = value
    return attributes


def _operation(event: RequestFinished) -> str:
    return "chat" if event.generated else _OPERATIONS.get(event.lane, "embeddings")


def _batching(exporter: SpanExporter) -> SpanProcessor:
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return BatchSpanProcessor(exporter)


def _require_extra() -> None:
    try:
        import opentelemetry.exporter.otlp.proto.http
        import opentelemetry.sdk.trace  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"telemetry.otlp_endpoint needs OpenTelemetry, which is not installed ({error})",
            hint=f"{install_command('otel')}, or leave telemetry.otlp_endpoint empty",
            param="telemetry.otlp_endpoint",
        ) from None
