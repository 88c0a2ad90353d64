"""The server as a process: ready, answering, drained by SIGTERM, unhurt by kill -9."""

from __future__ import annotations

import signal

import httpx
import pytest
from tests.e2e.command import READY, Command, Running, ended
from tests.e2e.test_demo import QUESTION, check_citations

pytestmark = pytest.mark.model


def start(command: Command) -> tuple[Running, str]:
    running = command.start("serve", "--port", "0")
    return running, running.wait_for(READY).group(1)


def test_it_answers_over_http_and_drains_on_sigterm(demo: Command) -> None:
    running, url = start(demo)
    with running, httpx.Client(base_url=url, timeout=90) as http:
        assert http.get("/health/ready").status_code == 200
        answer = http.post("/v1/collections/demo/ask", json={"question": QUESTION})
        assert answer.status_code == 200, answer.text
        check_citations(demo, answer.json())
        reloaded = demo.json("models", "reload", "embedder", "--set", f"server.port={_port(url)}")
        assert reloaded["reloaded"] == ["embedder"]
        children = running.children()
        running.stop(signal.SIGTERM, code=0)
        assert all(ended(pid) for pid in children)


def test_a_killed_server_comes_back_with_its_documents(demo: Command) -> None:
    running, url = start(demo)
    with running, httpx.Client(base_url=url, timeout=90) as http:
        added = http.post(
            "/v1/collections/demo/documents",
            json={"records": [{"id": "late", "text": "The late record says 4711."}]},
        )
        assert added.status_code in (200, 201), added.text
        running.stop(signal.SIGKILL, code=-signal.SIGKILL)
    running, url = start(demo)
    with running, httpx.Client(base_url=url, timeout=90) as http:
        found = http.post("/v1/collections/demo/search", json={"query": "late record 4711"})
        assert "late" in {hit["document"] for hit in found.json()["hits"]}
        assert http.delete("/v1/collections/demo/documents/late").is_success
        running.stop(signal.SIGTERM, code=0)


def test_a_port_in_use_is_said_plainly(demo: Command) -> None:
    running, url = start(demo)
    with running:
        refused = demo.run("serve", "--port", str(_port(url)), code=2)
        assert "error: cannot listen on 127.0.0.1" in refused.stderr
        assert "hint: " in refused.stderr


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])
