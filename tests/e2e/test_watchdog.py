"""The watchdog over running servers: it ends one, leaves a busy one alone, frees real memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.e2e.command import READY, Command, Running

from ondol.core.pid_file import NAME

IDLE = ("--set", "watchdog.sample_seconds=0.2", "--set", "watchdog.busy_below=0.9", "--json")
"""A look five times a second, and a threshold that neighbours on a loaded machine do not reach."""


@contextmanager
def fake_server(command: Command) -> Iterator[tuple[Running, str]]:
    script = Path(__file__).with_name("fake_server.py")
    process = subprocess.Popen(
        [sys.executable, str(script), "0"],
        env=command.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    with Running(process) as running:
        yield running, running.wait_for(READY).group(1)


@pytest.fixture
def command(root: Path, tmp_path: Path) -> Command:
    return Command(root, tmp_path / "home")


def watch(command: Command, url: str, *arguments: str, code: int = 0) -> list[dict[str, object]]:
    port = url.rpartition(":")[2]
    done = command.run("watchdog", *arguments, *IDLE, "--set", f"server.port={port}", code=code)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_an_idle_server_is_ended(command: Command) -> None:
    with fake_server(command) as (server, url):
        dry = watch(command, url, "--once", "--action", "exit", "--idle", "0.5", "--dry-run")
        assert (dry[-1]["verdict"], dry[-1]["acted"], dry[-1]["dry_run"]) == ("due", False, True)
        assert httpx.get(f"{url}/health/ready").status_code == 200
        said = watch(command, url, "--once", "--action", "exit", "--idle", "1")
        assert [line["verdict"] for line in said] == ["idle", "due"]
        assert said[-1]["said"] == f"process {server.process.pid} was asked to end"
        assert server.process.wait(30) == 0
    assert not (command.home / NAME).exists()


def test_a_server_that_is_not_known_for_certain_is_left_alone(
    command: Command, tmp_path: Path
) -> None:
    """Another home, another server, no server: nobody gets a signal."""
    stranger = Command(command.root, tmp_path / "other")
    with fake_server(command) as (server, url):
        refused = watch(stranger, url, "--once", "--action", "exit", "--idle", "0.5", code=1)
        assert "is not known" in str(refused[-1]["error"])
        wrong_port = watch(command, "http://127.0.0.1:1", "--once", "--action", "exit")
        assert [line["verdict"] for line in wrong_port] == ["unknown"]
        assert server.process.poll() is None


def test_a_server_that_works_is_left_alone(command: Command, tmp_path: Path) -> None:
    """Requests keep coming while the watchdog looks for far longer than its idle time."""
    stop = threading.Event()
    touched = tmp_path / "touched"

    def work(url: str) -> None:
        body = {
            "model": "auto",
            "messages": [{"role": "user", "content": "word " * 400}],
            "max_tokens": 400,
        }
        with httpx.Client(base_url=url, timeout=30) as client:
            while not stop.is_set():
                client.post("/v1/chat/completions", json=body)

    with fake_server(command) as (_, url):
        workers = [threading.Thread(target=work, args=(url,)) for _ in range(8)]
        for worker in workers:
            worker.start()
        try:
            said = watch(
                command, url, "--once", "--action", "command", "--idle", "3",
                "--set", f"watchdog.command=touch {touched}",
            )  # fmt: skip
        finally:
            stop.set()
            for worker in workers:
                worker.join(30)
        assert said[-1]["verdict"] in {"working", "busy"}
        assert not any(line["acted"] for line in said)
        assert not touched.exists()
        watch(
            command, url, "--once", "--action", "command", "--idle", "0.5",
            "--set", f"watchdog.command=touch {touched}",
        )  # fmt: skip
        assert touched.exists()


@pytest.mark.model
def test_unloading_an_idle_server_frees_its_memory(linked_home: Path, root: Path) -> None:
    command = Command(root, linked_home)
    serve = ("serve", "--port", "0", "--set", "generation.model=none")
    with command.start(*serve) as server:
        url = server.wait_for(READY).group(1)
        body = {"model": "auto", "input": "온돌은 따뜻하다"}
        assert httpx.post(f"{url}/v1/embeddings", json=body, timeout=60).status_code == 200
        loaded = _resident(server.process.pid)
        said = watch(command, url, "--once", "--action", "unload", "--idle", "1")
        assert said[-1]["said"] == "unloaded: embedder, reranker"
        freed = loaded - _resident(server.process.pid)
        assert freed > 100_000_000, f"{freed / 1e6:.0f} MB of {loaded / 1e6:.0f} MB"
        assert httpx.post(f"{url}/v1/embeddings", json=body, timeout=60).status_code == 200


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
