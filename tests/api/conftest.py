"""Fixtures of the API tests: a quick app per test, and one real server for the session."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from openai import OpenAI
from tests.api.stage import Script, listening, make_app, make_settings, running

from ondol.backends.fake_generator import FakeGenerator

BARELY = 1e-42
"""Relevance is calibrated for real embeddings; what fakes find is far below, what they miss at 0."""


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app on fakes, ready, without the keyword analyser."""
    async with running(make_app(tmp_path)) as found:
        yield found


@dataclass(frozen=True)
class Served:
    """A real server: its address, an HTTP client, and what the test holds of its generator.

    A reply put into ``script`` is the next answer (or error); ``gate`` holds generation after the
    first piece for as long as it is cleared.
    """

    url: str
    http: httpx.Client
    generator: FakeGenerator
    script: Script
    gate: threading.Event

    def openai(self) -> OpenAI:
        """Return the official client, without retries."""
        return OpenAI(base_url=f"{self.url}/v1", api_key="unused", max_retries=0)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One real server on fakes for the session."""
    home = tmp_path_factory.mktemp("served")
    script, gate = Script(), threading.Event()
    generator = FakeGenerator(script=script, decode_gate=gate)
    app = make_app(home, generator=generator, keywords=True, answer={"min_relevance": BARELY})
    settings = make_settings(home, server={"port": 0, "drain_seconds": 1})
    with (
        listening(app, settings) as process,
        httpx.Client(base_url=process.url, timeout=30) as http,
    ):
        yield Served(process.url, http, generator, script, gate)


@pytest.fixture
def served(server: Served) -> Iterator[Served]:
    """The session's server, its generator alive and unscripted before and after."""
    server.gate.set()
    yield server
    server.gate.set()
    server.script.replies.clear()
    server.generator.revive()
