"""The catalogue on the terminal; nothing is fetched here."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from tests.cli.conftest import Run


def test_the_list_names_every_model(run: Run) -> None:
    listed = run("models", "list", "--json").data["models"]
    by_id = {model["id"]: model for model in listed}
    assert by_id["multilingual-e5-small"]["state"] == "absent"
    assert by_id["multilingual-e5-small"]["role"] == "embedder"
    assert by_id["multilingual-e5-small"]["bytes"] > 80_000_000
    rerankers = run("models", "list", "--role", "reranker", "--json").data["models"]
    assert {model["role"] for model in rerankers} == {"reranker"}
    assert "multilingual-e5-small" in run("models", "list").out


def test_info_shows_hashes_and_licence(run: Run) -> None:
    info = run("models", "info", "multilingual-e5-small", "--json").data
    assert info["licence"] == "MIT"
    assert all(file["sha256"] for file in info["files"])
    assert "sha256" in run("models", "info", "multilingual-e5-small").out
    wrong = run("models", "info", "multilingual-e5")
    assert wrong.code == 2
    assert "multilingual-e5-small" in wrong.err


def test_pulling_offline_names_the_command(run: Run) -> None:
    refused = run("models", "pull", "smollm2-135m-instruct", "--offline", "--json")
    assert refused.code == 1
    assert refused.data["error"]["code"] == "offline_missing"
    assert "ondol models pull smollm2-135m-instruct" in refused.err


def test_pulling_by_default_says_why_this_generator(run: Run) -> None:
    refused = run("models", "pull", "--offline")
    assert refused.code == 1
    assert "generator: " in refused.err
    assert "cores" in refused.err


class Server(HTTPServer):
    """Answers every POST with ``answer``; remembers what came."""

    answer: tuple[int, object] = (200, {})
    seen: list[tuple[str, str | None, object]]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append((self.path, self.headers["authorization"], body))
        status, answer = self.server.answer
        raw = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: object) -> None:
        return None


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.seen = []
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_reload_asks_the_running_server(server: Server, run: Run) -> None:
    server.answer = (200, {"reloaded": ["reranker"], "seconds": 0.5, "data": []})
    port = f"server.port={server.server_port}"
    done = run("models", "reload", "reranker", "--set", port, "--set", "server.api_keys=k")
    assert done.code == 0
    assert done.out == "reloaded: reranker\n"
    assert server.seen == [("/v1/models/reload", "Bearer k", {"component": "reranker"})]
    assert run("models", "reload", "--set", port, "--json").data["seconds"] == 0.5


@pytest.mark.parametrize(
    ("status", "answer", "code", "said"),
    [
        (503, {"error": {"message": "it drains", "hint": "wait"}}, 3, "it drains"),
        (401, {"error": {"message": "no key", "hint": "send one"}}, 3, "no key"),
        (500, {"error": {"message": "it broke"}}, 1, "it broke"),
        (500, ["nonsense"], 1, "the server answered 500"),
    ],
)
def test_reload_passes_refusals_on(
    status: int, answer: object, code: int, said: str, server: Server, run: Run
) -> None:
    server.answer = (status, answer)
    refused = run("models", "reload", "--set", f"server.port={server.server_port}")
    assert refused.code == code
    assert said in refused.err


def test_reload_without_a_server(run: Run) -> None:
    with HTTPServer(("127.0.0.1", 0), Handler) as closed:
        port = closed.server_port
    refused = run("models", "reload", "--set", f"server.port={port}")
    assert refused.code == 3
    assert "ondol serve" in refused.err
