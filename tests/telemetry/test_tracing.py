"""Spans in the words of the GenAI conventions; nothing is sent and nothing imported unasked."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading

import pytest

from ondol.core.clock import ManualClock
from ondol.core.errors import SettingsError
from ondol.core.events import BatchRun, RequestFinished, Timing
from ondol.core.extras import install_command
from ondol.core.settings.operation_sections import TelemetrySettings
from ondol.telemetry.metrics import Listeners
from ondol.telemetry.tracing import Tracing

START = 1_700_000_000.0
EVENT = RequestFinished(
    "chat", "qwen", "ok",
    Timing(request_id="r-1", queue_ms=20.0, ttft_ms=250.0, tpot_ms=40.0, total_ms=1000.0),
    tokens_in=90, tokens_out=30, tokens_cached=60, generated=True, deadline_ms=2000.0,
)  # fmt: skip


def test_a_request_is_a_span() -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.trace import SpanKind, StatusCode

    kept = InMemorySpanExporter()
    tracing = Tracing(SimpleSpanProcessor(kept), clock=ManualClock(START))
    tracing.observe(EVENT)
    tracing.observe(BatchRun("m", items=1, tokens=1, padded_tokens=1, seconds=0.1))
    tracing.observe(RequestFinished("embeddings", "e5", "refused", Timing(), code="overloaded"))
    tracing.close()
    chat, refused = kept.get_finished_spans()
    assert chat.name == "chat qwen"
    assert chat.kind is SpanKind.SERVER
    assert chat.start_time is not None
    assert chat.end_time is not None
    assert chat.end_time - chat.start_time == 10**9
    [first_token] = chat.events
    assert first_token.timestamp - chat.start_time == 250_000_000
    assert chat.attributes is not None
    found = dict(chat.attributes)
    assert found["gen_ai.operation.name"] == "chat"
    assert found["gen_ai.request.model"] == "qwen"
    assert found["gen_ai.usage.input_tokens"] == 90
    assert found["gen_ai.usage.output_tokens"] == 30
    assert found["gen_ai.usage.cache_read.input_tokens"] == 60
    assert found["gen_ai.response.time_to_first_chunk"] == 0.25
    assert found["gen_ai.server.time_to_first_token"] == 0.25
    assert found["ondol.lane"] == "chat"
    assert found["ondol.request_id"] == "r-1"
    assert found["ondol.deadline_met"] is True
    assert chat.status.status_code is StatusCode.UNSET
    assert refused.name == "embeddings e5"
    assert refused.status.status_code is StatusCode.ERROR
    assert refused.attributes is not None
    assert refused.attributes["error.type"] == "overloaded"
    assert chat.resource.attributes["service.name"] == "ondol"


class Collector(http.server.HTTPServer):
    """Keeps what is posted."""

    seen: list[tuple[str, bytes]]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append((self.path, body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return None


def test_spans_reach_the_collector_that_the_settings_name() -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    collector = Collector(("127.0.0.1", 0), Handler)
    collector.seen = []
    thread = threading.Thread(target=collector.serve_forever, daemon=True)
    thread.start()
    try:
        endpoint = f"http://127.0.0.1:{collector.server_port}"
        listeners = Listeners(
            TelemetrySettings(otlp_endpoint=endpoint, log_requests=False), clock=ManualClock(START)
        )
        listeners.observe(EVENT)
        listeners.close()
    finally:
        collector.shutdown()
        collector.server_close()
        thread.join()
    [(path, body)] = collector.seen
    assert path == "/v1/traces"
    assert b"gen_ai.request.model" in body


def test_without_an_endpoint_the_sdk_is_not_even_imported() -> None:
    code = (
        "import sys\n"
        "from ondol.core.clock import SystemClock\n"
        "from ondol.core.settings.operation_sections import TelemetrySettings\n"
        "from ondol.telemetry.metrics import Listeners\n"
        "Listeners(TelemetrySettings(), clock=SystemClock()).close()\n"
        "print([m for m in sys.modules if m.startswith('opentelemetry.sdk')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingsError, match="not installed") as error:
        Listeners(TelemetrySettings(otlp_endpoint="http://127.0.0.1:4318"), clock=ManualClock())
    assert install_command("otel") in error.value.hint
