"""Models in service over HTTP: what runs and why, swapped under load, unloaded, compared."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from tests.api.stage import error_of, listening, make_app, make_settings, running

EMBED = {"model": "auto", "input": ["a warm floor", "온돌"]}
RERANK = {"model": "auto", "query": "warm floor", "documents": ["a warm floor", "lunch"]}


async def slot_of(client: httpx.AsyncClient, model: str = "fake-embedder") -> dict[str, Any]:
    said = (await client.get(f"/v1/models/{model}")).json()
    slot: dict[str, Any] = said["slots"][0]
    return slot


async def test_a_loaded_model_says_how_it_runs_and_why(tmp_path: Path) -> None:
    app = make_app(tmp_path, models={"form": "fake:int8", "token_budget": 777})
    async with running(app) as client:
        slot = await slot_of(client)
        assert (slot["form"], slot["runtime"], slot["device"]) == ("fake:int8", "fake", "cpu")
        assert (slot["state"], slot["purpose"], slot["loads"]) == ("ready", "query", 1)
        assert slot["reason"]
        assert slot["fallback"] == slot["error"] == ""
        assert slot["batch"] == {"token_budget": 777, "max_batch": 64, "threads": 1}
        assert set(slot["memory"]) == {"resident_bytes", "exact", "weights_bytes"}
        reranker = await slot_of(client, "fake-reranker")
        assert reranker["form"] == "fake:fp32"
        generator = (await client.get("/v1/models/fake-generator")).json()
        assert "slots" not in generator


def test_no_request_fails_while_models_are_reloaded(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, server={"port": 0, "drain_seconds": 5})
    stop = threading.Event()
    codes: Counter[int] = Counter()
    lock = threading.Lock()

    def ask(url: str, path: str, body: dict[str, Any]) -> None:
        seen: Counter[int] = Counter()
        with httpx.Client(base_url=url, timeout=30) as client:
            while not stop.is_set():
                seen[client.post(path, json=body).status_code] += 1
        with lock:
            codes.update(seen)

    with listening(make_app(tmp_path), settings) as process:
        work = [("/v1/embeddings", EMBED), ("/v1/rerank", RERANK)] * 4
        asking = [
            threading.Thread(target=ask, args=(process.url, path, body)) for path, body in work
        ]
        for thread in asking:
            thread.start()
        with httpx.Client(base_url=process.url, timeout=30) as client:
            for turn in range(6):
                for component in ("embedder", "reranker"):
                    reloaded = client.post(
                        "/v1/models/reload",
                        json={"component": component, "form": f"fake:v{turn}"},
                    )
                    assert reloaded.status_code == 200, reloaded.text
                    assert client.get("/health/ready").status_code == 200
            form = client.get("/v1/models/fake-embedder").json()["slots"][0]["form"]
        stop.set()
        for thread in asking:
            thread.join(30)
    assert form == "fake:v5"
    assert set(codes) == {200}
    assert codes[200] > 20


async def test_a_reload_without_a_form_goes_back_to_the_settings(tmp_path: Path) -> None:
    async with running(make_app(tmp_path, models={"form": "fake:int8"})) as client:
        named = {"component": "embedder", "form": "fake:fp32"}
        assert (await client.post("/v1/models/reload", json=named)).status_code == 200
        assert (await slot_of(client))["form"] == "fake:fp32"
        assert (await client.post("/v1/models/reload", json={})).status_code == 200
        assert (await slot_of(client))["form"] == "fake:int8"


async def test_a_reload_that_cannot_be_is_refused_and_the_old_goes_on(tmp_path: Path) -> None:
    async with running(make_app(tmp_path)) as client:
        for body in (
            {"form": "fake:int8"},
            {"component": "generator", "form": "fake:int8"},
            {"component": "embedder", "form": "no form at all"},
        ):
            refused = await client.post("/v1/models/reload", json=body)
            assert refused.status_code == 400, body
            error_of(refused)
        broken = {"component": "embedder", "form": "fake:broken"}
        failed = await client.post("/v1/models/reload", json=broken)
        assert failed.status_code == 500
        assert "broken" in error_of(failed)["message"]
        assert (await slot_of(client))["form"] == "fake:fp32"
        assert (await client.post("/v1/embeddings", json=EMBED)).status_code == 200
        assert (await client.get("/health/ready")).status_code == 200


async def test_a_form_that_fails_leaves_a_server_that_says_so(tmp_path: Path) -> None:
    app = make_app(tmp_path, models={"form": "fake:broken", "reranker_form": "fake:broken"})
    async with running(app) as client:
        ready = await client.get("/health/ready")
        assert ready.status_code == 200
        embedder = ready.json()["components"]["embedder"]
        assert embedder["form"] == "fake:fp32"
        assert embedder["fallback"].startswith("fake:broken failed")
        assert "broken" in (await slot_of(client))["fallback"]
        assert "broken" in (await slot_of(client, "fake-reranker"))["fallback"]
        assert (await client.post("/v1/embeddings", json=EMBED)).status_code == 200
        metrics = (await client.get("/metrics")).text
        series = 'ondol_form_fallbacks_total{model="fake-embedder",wanted="fake:broken"} 1.0'
        assert series in metrics


async def test_an_idle_model_goes_and_comes_back(tmp_path: Path) -> None:
    async with running(make_app(tmp_path, models={"keep_alive": 0.01})) as client:
        async with asyncio.timeout(20):
            while (await slot_of(client))["state"] != "cold":
                await asyncio.sleep(0)
        ready = await client.get("/health/ready")
        assert ready.status_code == 200
        assert "idle" in ready.json()["components"]["embedder"]["reason"]
        assert (await client.get("/v1/lanes")).json()["lanes"]["embeddings"]["depth"] == 0
        assert (await client.post("/v1/embeddings", json=EMBED)).status_code == 200
        assert (await slot_of(client))["loads"] >= 2


async def test_a_comparison_is_seen_live(tmp_path: Path) -> None:
    app = make_app(tmp_path, ab={"candidate": "fake:int8", "share": 1.0})
    async with running(app) as client:
        for n in range(5):
            body = {"model": "auto", "input": f"text {n}"}
            assert (await client.post("/v1/embeddings", json=body)).status_code == 200
        async with asyncio.timeout(20):
            while True:
                (comparison,) = (await client.get("/v1/ab")).json()["comparisons"]
                if comparison["figures"]["candidate"]["requests"] == 5:
                    break
                await asyncio.sleep(0)
        assert (comparison["component"], comparison["mode"]) == ("embedder", "shadow")
        assert comparison["figures"]["agreement"]["mean"] == 1.0
        assert comparison["slot"]["form"] == "fake:int8"
        shown = (await client.get("/v1/models/fake-embedder")).json()
        assert shown["ab"]["figures"]["agreement"]["compared"] == 5
        metrics = (await client.get("/metrics")).text
        assert (
            'ondol_ab_requests_total{candidate="fake:int8",component="embedder",'
            'outcome="shadowed"} 5.0' in metrics
        )
        assert 'ondol_ab_seconds_count{component="embedder",side="candidate"} 5.0' in metrics


async def test_without_a_candidate_nothing_is_compared(tmp_path: Path) -> None:
    async with running(make_app(tmp_path)) as client:
        assert (await client.get("/v1/ab")).json() == {"comparisons": []}
        assert (await client.get("/v1/models/fake-embedder")).json()["ab"] is None
