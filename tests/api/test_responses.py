"""What stands on every response, the metrics, and the pages."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import logging
import re
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.api.stage import error_of, make_app, running

from ondol.core.events import (
    BatchRun,
    CitationsVerified,
    DocumentIngested,
    ModelStateChanged,
    RequestFinished,
    Timing,
)
from ondol.core.settings.lane_sections import LANES
from ondol.telemetry.logs import configure_logging, request_id
from ondol.telemetry.metrics import TABLE, Metrics

HEADERS = (
    "x-ondol-request-id",
    "x-ondol-queue-ms",
    "x-ondol-tokenize-ms",
    "x-ondol-inference-ms",
)


async def test_every_response_carries_id_and_timings(client: httpx.AsyncClient) -> None:
    chat = {"model": "auto", "messages": [{"role": "user", "content": "a b"}], "stream": True}
    responses = [
        await client.get("/"),
        await client.get("/nothing"),
        await client.get("/health/live"),
        await client.get("/metrics"),
        await client.post("/v1/embeddings", content=b"{"),
        await client.post("/v1/embeddings", json={"model": "auto", "input": "a"}),
        await client.post("/v1/chat/completions", json=chat),
        await client.get("/v1/models", headers={"host": "evil.example"}),
    ]
    for response in responses:
        for name in HEADERS:
            assert response.headers[name]
        for name in HEADERS[1:]:
            assert float(response.headers[name]) >= 0
    assert len({response.headers["x-ondol-request-id"] for response in responses}) == 8


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-1.2:3_4", True), ("a" * 128, True), ("a" * 129, False), ("a b", False), ("", False)],
)
async def test_a_sane_request_id_is_kept(client: httpx.AsyncClient, given: str, kept: bool) -> None:
    for name in ("x-ondol-request-id", "x-request-id"):
        response = await client.get("/health/live", headers={name: given})
        assert (response.headers["x-ondol-request-id"] == given) is kept


async def test_lanes(client: httpx.AsyncClient) -> None:
    lanes = (await client.get("/v1/lanes")).json()["lanes"]
    assert set(lanes) == set(LANES)
    for lane in lanes.values():
        assert lane["depth"] == lane["running"] == lane["rejected"] == 0
        assert lane["capacity"] > 0
        assert lane["estimated_wait_ms"] == 0


async def test_metrics_exist_before_traffic_and_count_it(client: httpx.AsyncClient) -> None:
    before = samples((await client.get("/metrics")).text)
    assert before['ondol_requests_total{lane="embeddings",outcome="ok"}'] == 0
    assert before['ondol_model_state{model="fake-embedder",state="ready"}'] == 1
    assert before["ondol_generator_restarts_total"] == 0
    assert before["ondol_process_resident_bytes"] > 1e6
    await client.post("/v1/embeddings", json={"model": "auto", "input": ["a b", "c"]})
    chat = {"model": "auto", "messages": [{"role": "user", "content": "a b"}]}
    await client.post("/v1/chat/completions", json=chat)
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    after = samples(response.text)
    assert after['ondol_requests_total{lane="embeddings",outcome="ok"}'] == 1
    assert after['ondol_requests_total{lane="chat",outcome="ok"}'] == 1
    assert after['ondol_tokens_total{direction="out",lane="chat"}'] == 2
    assert after['ondol_first_token_seconds_count{lane="chat"}'] == 1
    assert after['ondol_batches_total{model="fake-embedder",outcome="ok"}'] >= 1


def samples(text: str) -> dict[str, float]:
    """Return every sample by its name and sorted labels."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_every_event_is_counted_and_registries_are_apart() -> None:
    metrics, other = Metrics(), Metrics()
    timing = Timing(queue_ms=20, prefill_ms=100, decode_ms=400, ttft_ms=150, total_ms=520)
    metrics.observe(RequestFinished("ask", "m", "refused", timing, tokens_in=9, tokens_cached=4))
    metrics.observe(BatchRun("m", items=2, tokens=75, padded_tokens=100, seconds=0.1))
    metrics.observe(BatchRun("m", items=1, tokens=0, padded_tokens=0, seconds=0.1, failed=True))
    metrics.observe(ModelStateChanged("generator", "ready"))
    metrics.observe(ModelStateChanged("generator", "restarting", reason="died"))
    metrics.observe(DocumentIngested("c", "s", "added", chunks=3))
    metrics.observe(DocumentIngested("c", "s", "deleted"))
    metrics.observe(CitationsVerified(verified=2, dropped=1))
    found = samples(metrics.render().decode())
    assert found['ondol_requests_total{lane="ask",outcome="refused"}'] == 1
    assert found['ondol_request_inference_seconds_sum{lane="ask"}'] == pytest.approx(0.5)
    assert found['ondol_tokens_total{direction="cached",lane="ask"}'] == 4
    assert found['ondol_batch_padding_ratio_sum{model="m"}'] == pytest.approx(0.25)
    assert found['ondol_batches_total{model="m",outcome="failed"}'] == 1
    assert found['ondol_model_state{model="generator",state="ready"}'] == 0
    assert found['ondol_model_state{model="generator",state="restarting"}'] == 1
    assert found["ondol_generator_restarts_total"] == 1
    assert found["ondol_chunks_total"] == 3
    assert found['ondol_documents_total{outcome="deleted"}'] == 1
    assert found['ondol_citations_total{outcome="dropped"}'] == 1
    assert samples(other.render().decode())["ondol_chunks_total"] == 0


def test_the_table_of_metrics_is_well_formed() -> None:
    names = [series.name for series in TABLE]
    assert len(names) == len(set(names))
    for series in TABLE:
        assert re.fullmatch(r"ondol_[a-z_]+", series.name)
        assert series.help.endswith(".")
        assert (series.kind == "histogram") == bool(series.buckets)
        assert list(series.buckets) == sorted(series.buckets)
        for labels in series.before:
            assert set(labels) == set(series.labels)
    assert {"chat", "embeddings", "rerank", "search", "batch"} <= set(LANES)


def test_logs_are_json_off_a_terminal_and_carry_the_request_id() -> None:
    stream = io.StringIO()
    token = request_id.set("req-7")
    try:
        configure_logging("info", stream=stream)
        logging.getLogger("ondol.test").info("읽었다 %d", 3, extra={"lane": "chat"})
        logging.getLogger("ondol.test").debug("not this")
        try:
            raise ValueError("inner")
        except ValueError:
            logging.getLogger("ondol.test").exception("broke")
        configure_logging("debug", stream=stream, as_json=False)
        logging.getLogger("ondol.test").debug("plain")
    finally:
        request_id.reset(token)
        for name in ("ondol", "uvicorn"):
            logger = logging.getLogger(name)
            logger.handlers.clear()
            logger.propagate = True
            logger.setLevel(logging.NOTSET)
    first, second, third = stream.getvalue().splitlines()
    line = json.loads(first)
    assert (line["level"], line["logger"], line["message"]) == ("info", "ondol.test", "읽었다 3")
    assert (line["request_id"], line["lane"]) == ("req-7", "chat")
    assert "ValueError: inner" in json.loads(second)["exception"]
    assert third.endswith("debug ondol.test: plain [req-7]")


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_pages_allow_only_their_own_script(client: httpx.AsyncClient, path: str) -> None:
    page = await client.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    [script] = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "http://" not in page.text.replace("http://www.w3.org", "")
    assert "https://" not in page.text
    for danger in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert danger not in page.text
    assert not re.search(r"\son\w+=", page.text)
    assert not re.search(r"\sstyle=", page.text)
    assert len(page.text.splitlines()) < 300


async def test_the_endpoint_list_can_be_turned_off(tmp_path: Path) -> None:
    async with running(make_app(tmp_path, server={"docs": False}), loaded=False) as client:
        for path in ("/docs", "/openapi.json"):
            assert (await client.get(path)).status_code == 404
        assert (await client.get("/")).status_code == 200


async def test_the_endpoint_list_names_the_contract(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    for path, methods in {
        "/v1/models": {"get"},
        "/v1/models/{model}": {"get"},
        "/v1/models/reload": {"post"},
        "/v1/embeddings": {"post"},
        "/v1/chat/completions": {"post"},
        "/v1/rerank": {"post"},
        "/rerank": {"post"},
        "/v1/collections": {"get", "post"},
        "/v1/collections/{collection}": {"get", "delete"},
        "/v1/collections/{collection}/documents": {"get", "post"},
        "/v1/collections/{collection}/documents/{document}": {"get", "delete"},
        "/v1/collections/{collection}/search": {"post"},
        "/v1/collections/{collection}/ask": {"post"},
        "/v1/lanes": {"get"},
        "/metrics": {"get"},
        "/health/live": {"get"},
        "/health/ready": {"get"},
    }.items():
        assert set(paths[path]) == methods
    assert "422" not in json.dumps(paths)


async def test_the_reference_names_every_endpoint(client: httpx.AsyncClient, root: Path) -> None:
    page = (root / "docs/reference/http.md").read_text("utf-8")
    for path, methods in (await client.get("/openapi.json")).json()["paths"].items():
        short = path.replace("{collection}", "{c}").replace("{document}", "{id}")
        short = short.replace("{model}", "{id}").replace("{job}", "{id}")
        for method in methods:
            assert re.search(rf"`{method.upper()} {re.escape(short)}[`?]", page), (method, path)


async def test_get_never_writes(client: httpx.AsyncClient) -> None:
    for path in ("/v1/models/reload", "/v1/collections/c/search", "/v1/collections/c/ask"):
        response = await client.get(path)
        assert response.status_code in {404, 405}
        error_of(response)
