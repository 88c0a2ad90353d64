"""``POST /v1/models/unload``: what is idle goes, what works stays, and the next request loads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

from tests.api.stage import error_of, make_app, make_settings, running

from ondol.app.components import Parts
from ondol.app.container import Container
from ondol.backends.fake_encoder import FakeEmbedder
from ondol.backends.protocols import EncoderBackend
from ondol.core.events import Observer
from ondol.core.settings import Settings
from ondol.core.types import Encoded, FloatMatrix
from ondol.models.form_choice import FormChoice
from ondol.runtime.backend_factory import BackendFactory, Component
from ondol.runtime.encoders.encoder_plan import EncoderSource
from ondol.runtime.encoders.fake_encoders import FakeEncoders
from ondol.server.app import create_app

EMBED = {"model": "auto", "input": ["a warm floor"]}


async def test_idle_encoders_go_and_come_back(tmp_path: Path) -> None:
    async with running(make_app(tmp_path)) as client:
        said = (await client.post("/v1/models/unload", json={})).json()
        assert (said["unloaded"], said["busy"]) == (["embedder", "reranker", "generator"], [])
        slot = (await client.get("/v1/models/fake-embedder")).json()["slots"][0]
        assert slot["state"] == "cold"
        assert (await client.get("/health/ready")).status_code == 200
        again = (await client.post("/v1/models/unload", json={})).json()
        assert (again["unloaded"], again["busy"]) == ([], [])
        assert (await client.post("/v1/embeddings", json=EMBED)).status_code == 200
        one = (await client.post("/v1/models/unload", json={"component": "embedder"})).json()
        assert one["unloaded"] == ["embedder"]


class HeldEmbedder(FakeEmbedder):
    """Says when it works, and works until it is let go."""

    def __init__(self, entered: threading.Event, leave: threading.Event) -> None:
        super().__init__()
        self._entered = entered
        self._leave = leave

    def run(self, batch: Sequence[Encoded]) -> FloatMatrix:
        self._entered.set()
        self._leave.wait(30)
        return super().run(batch)


class HeldEncoders(FakeEncoders):
    def __init__(self, entered: threading.Event, leave: threading.Event) -> None:
        super().__init__("embedder")
        self._events = (entered, leave)

    def encoder(self, choice: FormChoice) -> EncoderBackend:
        return HeldEmbedder(*self._events)


class HeldBackends(BackendFactory):
    def __init__(self, settings: Settings, entered: threading.Event, leave: threading.Event):
        super().__init__(settings, fake=True)
        self._held = HeldEncoders(entered, leave)

    def encoder(self, component: Component) -> EncoderSource:
        return self._held if component == "embedder" else super().encoder(component)


async def test_an_encoder_with_a_request_in_it_stays(tmp_path: Path) -> None:
    entered, leave = threading.Event(), threading.Event()

    def opener(settings: Settings, observer: Observer) -> Container:
        return Container.open(
            settings,
            parts=Parts(keywords=False),
            observer=observer,
            backends=HeldBackends(settings, entered, leave),
        )

    leave.set()
    app = create_app(make_settings(tmp_path, cache={"embeddings": "off"}), opener=opener)
    async with running(app) as client:
        leave.clear()
        entered.clear()
        request = asyncio.create_task(client.post("/v1/embeddings", json=EMBED))
        assert await asyncio.to_thread(entered.wait, 30)
        said = (await client.post("/v1/models/unload", json={})).json()
        leave.set()
        assert (said["unloaded"], said["busy"]) == (
            ["reranker", "generator"],
            ["embedder"],
        )
        assert (await request).status_code == 200


async def test_what_is_not_there_cannot_be_unloaded(tmp_path: Path) -> None:
    async with running(make_app(tmp_path, models={"reranker": "none"})) as client:
        refused = await client.post("/v1/models/unload", json={"component": "reranker"})
        assert refused.status_code == 404
        error_of(refused)
        wrong = await client.post("/v1/models/unload", json={"component": "store"})
        assert wrong.status_code == 400
        error_of(wrong)
