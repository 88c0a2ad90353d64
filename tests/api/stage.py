"""What API tests run on: a container of fakes whose generator the test holds, and ways to serve it."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from tests.korean_model import shared_analyzer

from ondol.app.components import Parts
from ondol.app.container import Container
from ondol.backends.fake_generator import FakeGenerator, echo
from ondol.backends.protocols import Generator, GeneratorHealth
from ondol.core.errors import OndolError
from ondol.core.events import Observer
from ondol.core.settings import Settings
from ondol.core.types import GenerationRequest
from ondol.runtime.backend_factory import BackendFactory
from ondol.server.app import create_app
from ondol.server.http_process import HttpProcess

BASE = "http://127.0.0.1"


class Script:
    """A fake generator's script: the replies put in, one a request; then echoes."""

    def __init__(self) -> None:
        self.replies: list[str | OndolError] = []

    def __call__(self, request: GenerationRequest) -> Sequence[str] | OndolError:
        if not self.replies:
            return echo(request)
        reply = self.replies.pop(0)
        return (
            reply if isinstance(reply, OndolError) else [piece + " " for piece in reply.split(" ")]
        )


class StagedBackends(BackendFactory):
    """Fakes whose generator is built by the test."""

    def __init__(self, settings: Settings, build: Callable[[], Generator]) -> None:
        super().__init__(settings, fake=True)
        self._build = build

    def generator(self, *, on_state: Callable[[GeneratorHealth], None]) -> Generator:
        return self._build()


def staged_container(
    settings: Settings,
    *,
    observer: Observer,
    build: Callable[[], Generator],
    keywords: bool = False,
) -> Container:
    """Return a container on fakes; ``build`` makes its generator, in a thread, as loading does."""
    return Container.open(
        settings,
        parts=Parts(keywords=keywords),
        observer=observer,
        backends=StagedBackends(settings, build),
        analyzer=shared_analyzer(),
    )


def make_settings(home: Path, **sections: dict[str, Any]) -> Settings:
    """Return settings with a home of their own; sections as in ``ondol.toml``."""
    return Settings.model_validate({"home": home, "offline": True, **sections})


def make_app(
    home: Path,
    *,
    generator: FakeGenerator | None = None,
    keywords: bool = False,
    **sections: dict[str, Any],
) -> FastAPI:
    """Return an app on fakes, not started."""
    backend = generator or FakeGenerator()

    def opener(settings: Settings, observer: Observer) -> Container:
        return staged_container(
            settings, observer=observer, build=lambda: backend, keywords=keywords
        )

    return create_app(make_settings(home, **sections), opener=opener)


@asynccontextmanager
async def running(app: FastAPI, *, loaded: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    """Run the app's lifespan and yield a client that speaks ASGI to it."""
    async with app.router.lifespan_context(app):
        if loaded:
            await app.state.lifecycle.loaded()
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=BASE, timeout=30) as client:
            yield client


@contextmanager
def listening(app: FastAPI, settings: Settings) -> Iterator[HttpProcess]:
    """Run the app as a real server on a port the system chose, in a thread, until the block ends."""
    lines: list[str] = []
    announced = threading.Event()

    def announce(line: str) -> None:
        lines.append(line)
        announced.set()

    process = HttpProcess(app, settings=settings.server, announce=announce)
    thread = threading.Thread(target=process.run, name="test-server")
    thread.start()
    try:
        assert announced.wait(30), "the server did not get ready"
        assert process.url in lines[0]
        yield process
    finally:
        process.stop()
        process.stop()
        thread.join(30)
        assert not thread.is_alive()


def error_of(response: httpx.Response) -> dict[str, Any]:
    """Return the envelope's content after checking its shape and the headers."""
    body = response.json()
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "code", "param", "hint"}
    assert error["message"]
    assert error["code"]
    assert response.headers["x-ondol-request-id"]
    return error
