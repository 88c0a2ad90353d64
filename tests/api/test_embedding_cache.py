"""The embedding cache over HTTP: seen in a header, in ``/v1/lanes`` and in the metrics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fastapi import FastAPI
from tests.api.stage import make_settings, running

from ondol.app.components import Parts
from ondol.app.container import Container
from ondol.backends.fake_encoder import FakeEmbedder
from ondol.backends.protocols import EncoderBackend, EncoderSpec
from ondol.core.events import Observer
from ondol.core.settings import Settings
from ondol.models.form_choice import FormChoice
from ondol.runtime.backend_factory import BackendFactory, Component
from ondol.runtime.encoders.encoder_plan import EncoderSource
from ondol.runtime.encoders.fake_encoders import FakeEncoders
from ondol.server.app import create_app


class Fingerprinted(FakeEmbedder):
    @property
    def spec(self) -> EncoderSpec:
        return replace(super().spec, fingerprint="f00d")


class Source(FakeEncoders):
    def encoder(self, choice: FormChoice) -> EncoderBackend:
        return Fingerprinted(form=choice.form)


class Backends(BackendFactory):
    def encoder(self, component: Component) -> EncoderSource:
        return Source("embedder") if component == "embedder" else super().encoder(component)


def app_with(home: Path, embeddings: str) -> FastAPI:
    def opener(settings: Settings, observer: Observer) -> Container:
        return Container.open(
            settings,
            parts=Parts(keywords=False, generator=False, fake=True),
            observer=observer,
            backends=Backends(settings, fake=True),
        )

    return create_app(make_settings(home, cache={"embeddings": embeddings}), opener=opener)


BODY = {"model": "auto", "input": ["온돌", "a warm floor"]}


async def test_a_second_request_is_answered_from_memory_and_says_so(tmp_path: Path) -> None:
    async with running(app_with(tmp_path, "memory")) as client:
        first = await client.post("/v1/embeddings", json=BODY)
        second = await client.post("/v1/embeddings", json=BODY)
        assert first.json() == second.json()
        assert first.json()["usage"]["prompt_tokens"] > 0
        assert "x-ondol-cached-items" not in first.headers
        assert second.headers["x-ondol-cached-items"] == "2"
        assert second.headers["x-ondol-inference-ms"] == "0.00"
        (memory,) = (await client.get("/v1/lanes")).json()["embedding_cache"]
        assert (memory["tier"], memory["entries"], memory["hits"]) == ("memory", 2, 2)
        metrics = (await client.get("/metrics")).text
        assert 'ondol_embedding_cache_texts_total{found="memory"} 2.0' in metrics


async def test_sqlite_outlives_the_server(tmp_path: Path) -> None:
    async with running(app_with(tmp_path, "sqlite")) as client:
        first = await client.post("/v1/embeddings", json=BODY)
    async with running(app_with(tmp_path, "sqlite")) as client:
        second = await client.post("/v1/embeddings", json=BODY)
        assert second.headers["x-ondol-cached-items"] == "2"
        assert first.json() == second.json()


async def test_a_reload_to_another_form_starts_anew(tmp_path: Path) -> None:
    async with running(app_with(tmp_path, "memory")) as client:
        await client.post("/v1/embeddings", json=BODY)
        body = {"component": "embedder", "form": "fake:int8"}
        reloaded = await client.post("/v1/models/reload", json=body)
        assert reloaded.status_code == 200, reloaded.text
        again = await client.post("/v1/embeddings", json=BODY)
        assert "x-ondol-cached-items" not in again.headers


async def test_a_damaged_file_leaves_the_server_up(tmp_path: Path) -> None:
    (tmp_path / "embeddings.db").write_bytes(b"no database" * 100)
    async with running(app_with(tmp_path, "sqlite")) as client:
        for _ in range(2):
            assert (await client.post("/v1/embeddings", json=BODY)).status_code == 200
        memory, sqlite = (await client.get("/v1/lanes")).json()["embedding_cache"]
        assert not sqlite["on"]
        assert "database" in sqlite["reason"]
        assert memory["hits"] == 2


async def test_off_is_off(tmp_path: Path) -> None:
    async with running(app_with(tmp_path, "off")) as client:
        for _ in range(2):
            response = await client.post("/v1/embeddings", json=BODY)
            assert "x-ondol-cached-items" not in response.headers
        assert (await client.get("/v1/lanes")).json()["embedding_cache"] == []
