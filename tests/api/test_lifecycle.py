"""From the first moment to the last: live while loading, ready when loaded, draining at the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from tests.api.stage import (
    error_of,
    listening,
    make_app,
    make_settings,
    running,
    staged_container,
)

from ondol.app.container import Container
from ondol.backends.fake_generator import FakeGenerator
from ondol.backends.protocols import Generator
from ondol.core.errors import ModelError, OfflineMissing, SettingsError
from ondol.core.events import Observer
from ondol.core.settings import Settings
from ondol.server.app import create_app
from ondol.server.http_process import HttpProcess

HELLO = {"model": "auto", "messages": [{"role": "user", "content": "hello there"}]}


class Loading:
    """A generator that loads for as long as the test wants, or fails to."""

    def __init__(self, *, error: Exception | None = None) -> None:
        self.released = threading.Event()
        self.error = error
        if error is not None:
            self.released.set()

    def build(self) -> Generator:
        self.released.wait(30)
        if self.error is not None:
            raise self.error
        return FakeGenerator()

    def open(self, settings: Settings, observer: Observer) -> Container:
        return staged_container(settings, observer=observer, build=self.build)


async def test_the_port_answers_while_models_load(tmp_path: Path) -> None:
    loading = Loading()
    app = create_app(make_settings(tmp_path), opener=loading.open)
    async with running(app, loaded=False) as client:
        live = await client.get("/health/live")
        assert (live.status_code, live.json()) == (200, {"status": "live"})
        ready = await client.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["status"] == "starting"
        assert error_of(ready)["code"] == "not_ready"
        assert int(ready.headers["retry-after"]) >= 1
        assert (await client.get("/metrics")).status_code == 200
        chat = await client.post("/v1/chat/completions", json=HELLO)
        assert chat.status_code == 503
        assert "loading" in error_of(chat)["message"]
        reload = await client.post("/v1/models/reload", json={})
        assert reload.status_code == 409
        loading.released.set()
        await app.state.lifecycle.loaded()
        ready = await client.get("/health/ready")
        assert ready.status_code == 200
        assert ready.json()["status"] == "ready"
        assert ready.json()["components"]["generator"]["model"] == "fake-generator"
        assert (await client.post("/v1/chat/completions", json=HELLO)).status_code == 200


async def test_what_cannot_be_loaded_stays_red_and_the_rest_serves(tmp_path: Path) -> None:
    loading = Loading(error=OfflineMissing("the weights are not here", hint="pull them"))
    app = create_app(make_settings(tmp_path), opener=loading.open)
    async with running(app) as client:
        ready = await client.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["status"] == "degraded"
        assert "the weights are not here" in error_of(ready)["message"]
        chat = await client.post("/v1/chat/completions", json=HELLO)
        assert chat.status_code == 503
        embedded = await client.post("/v1/embeddings", json={"model": "auto", "input": "a"})
        assert embedded.status_code == 200
        still = await client.post("/v1/models/reload", json={"component": "generator"})
        assert still.status_code == 503
        loading.error = None
        again = await client.post("/v1/models/reload", json={"component": "generator"})
        assert again.status_code == 200
        assert again.json()["reloaded"] == ["generator"]
        assert (await client.get("/health/ready")).status_code == 200
        assert (await client.post("/v1/chat/completions", json=HELLO)).status_code == 200


async def test_reload_takes_all_that_are_in_use(tmp_path: Path) -> None:
    async with running(make_app(tmp_path)) as client:
        response = await client.post("/v1/models/reload", json={})
        assert response.json()["reloaded"] == ["embedder", "reranker", "generator"]
        assert len(response.json()["data"]) == 3
        embedded = await client.post("/v1/embeddings", json={"model": "auto", "input": "a"})
        assert embedded.status_code == 200


async def test_draining_refuses_what_comes_and_keeps_health_open(tmp_path: Path) -> None:
    app = make_app(tmp_path, server={"drain_seconds": 7.5})
    async with running(app) as client:
        app.state.gate.drain()
        response = await client.get("/v1/models")
        assert response.status_code == 503
        assert error_of(response)["code"] == "draining"
        assert response.headers["retry-after"] == "8"
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "draining")
        assert (await client.get("/health/live")).status_code == 200


def test_a_running_request_ends_before_the_server_does(tmp_path: Path) -> None:
    gate = threading.Event()
    generator = FakeGenerator(prefill_gate=gate)
    settings = make_settings(tmp_path, server={"port": 0, "drain_seconds": 30})
    app = make_app(tmp_path, generator=generator)
    process = HttpProcess(app, settings=settings.server, announce=lambda line: ready.set())
    ready = threading.Event()
    serving = threading.Thread(target=process.run)
    serving.start()
    assert ready.wait(30)
    codes: list[int] = []

    def ask() -> None:
        with httpx.Client(base_url=process.url, timeout=30) as client:
            codes.append(client.post("/v1/chat/completions", json=HELLO).status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    assert generator.wait_active(1)
    with httpx.Client(base_url=process.url, timeout=30) as client:
        process.stop()
        while client.get("/health/ready").json()["status"] != "draining":
            pass
        assert client.post("/v1/chat/completions", json=HELLO).json()["error"]["code"] == "draining"
    gate.set()
    asking.join(30)
    serving.join(30)
    assert codes == [200]
    assert not serving.is_alive()


def test_what_does_not_end_in_time_gets_an_error_event(tmp_path: Path) -> None:
    gate = threading.Event()
    generator = FakeGenerator(decode_gate=gate)
    settings = make_settings(tmp_path, server={"port": 0, "drain_seconds": 0.05})
    app = make_app(tmp_path, generator=generator)
    with (
        listening(app, settings) as process,
        httpx.Client(base_url=process.url, timeout=30) as client,
        client.stream("POST", "/v1/chat/completions", json={**HELLO, "stream": True}) as response,
    ):
        assert generator.wait_active(1)
        process.stop()
        lines = [line for line in response.iter_lines() if line.startswith("data: ")]
    assert '"error"' in lines[-1]
    assert "[DONE]" not in lines[-1]


def test_a_server_that_cannot_load_says_why_and_ends(tmp_path: Path) -> None:
    loading = Loading(error=OfflineMissing("the weights are not here", hint="pull them"))
    settings = make_settings(tmp_path, server={"port": 0})
    process = HttpProcess(create_app(settings, opener=loading.open), settings=settings.server)
    with pytest.raises(ModelError, match="the weights are not here"):
        process.run()


def test_a_taken_port_is_a_clear_error(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, server={"port": 0})
    app = make_app(tmp_path)
    with listening(app, settings) as process:
        port = int(process.url.rsplit(":", 1)[1])
        with pytest.raises(SettingsError, match=str(port)) as caught:
            HttpProcess(
                make_app(tmp_path / "b"),
                settings=make_settings(tmp_path, server={"port": port}).server,
            )
    assert "--port" in caught.value.hint


def test_bytes_that_are_no_http_get_the_envelope(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, server={"port": 0})
    with listening(make_app(tmp_path), settings) as process:
        port = int(process.url.rsplit(":", 1)[1])
        for request in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\na: " + b"x" * 40_000):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(request)
                answer = b""
                while piece := connection.recv(65536):
                    answer += piece
            assert answer.startswith(b"HTTP/1.1 400")
            assert b'"code":"invalid_http"' in answer


SERVE = """
import sys
from pathlib import Path
from ondol.core.settings import Settings
from ondol.server.app import serve
from ondol.app.components import Parts
from ondol.app.container import Container
settings = Settings.model_validate({"home": Path(sys.argv[1]), "server": {"port": 0}})
parts = Parts(keywords=False, fake=True)
serve(settings, opener=lambda s, o: Container.open(s, parts=parts, observer=o))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_in_order(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(tmp_path)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "ONDOL_HOME": str(tmp_path)},
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("ondol is ready on http://127.0.0.1:")
        assert "fake-generator" in line
        url = line.split()[4]
        assert httpx.get(f"{url}/health/ready").status_code == 200
        process.send_signal(number)
        out, rest = process.communicate(timeout=30)
        assert process.returncode == 0
        assert out == ""
        assert "Traceback" not in rest
