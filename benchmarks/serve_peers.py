"""Servers against each other over HTTP: ``ondol serve`` and infinity (torch), one text a request.

Each round starts one server, drives it with 32 keep-alive clients and then with one, and stops it
before the next starts; the next round begins with the other. Same texts (cut at the model's limit),
same cores, same client, no result cache on either side.
Run: ``python benchmarks/serve_peers.py [--rounds 3] [--seconds 10] [--quick]``.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import command, environment, report, table, working_home
from comparison import default_peers, pin, say, scratch_of
from contestant_ondol import uncached
from http_clients import answers_ok, drive, first_answer, get, post
from peer_folders import write_folder
from texts import english

MODEL = "all-minilm-l6-v2"
START_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Rival:
    """A server: how it is started, when it is ready, and how one text is asked for."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    ready: str
    path: str
    body: Mapping[str, Any]
    about: str = ""


def ondol_server(options: argparse.Namespace, *, port: int, home: Path) -> Rival:
    """Return ``ondol serve`` with an embedder only."""
    settings = {
        "models.embedder": MODEL,
        "models.reranker": "none",
        "models.threads": options.cores,
        "generation.model": "none",
        **uncached(),
        **({"models.form": options.form} if options.form else {}),
    }
    env = {f"ONDOL_{key.replace('.', '_').upper()}": str(v) for key, v in settings.items()}
    return Rival(
        "ondol",
        command("serve", "--port", str(port)),
        environment(home) | env,
        "/health/ready",
        "/v1/embeddings",
        {"model": MODEL, "truncate": True},
        about=f"/v1/models/{MODEL}",
    )


def infinity_server(options: argparse.Namespace, *, port: int) -> Rival:
    """Return infinity as its documentation starts it on a CPU, without its result cache."""
    binary = options.peers / "bin" / "infinity_emb"
    if not binary.exists():
        raise SystemExit(f"no peers in {options.peers}: run `make peers`, or name another")
    folder = write_folder(MODEL, scratch_of(options.peers) / MODEL)
    argv = [str(binary), "v2", "--model-id", str(folder), "--engine", "torch", "--device", "cpu"]
    argv += ["--no-vector-disk-cache", "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--served-model-name", MODEL, "--log-level", "warning"]
    env = {
        **environment(),
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": str(options.cores),
    }
    return Rival("infinity (torch)", argv, env, "/health", "/embeddings", {"model": MODEL})


def round_of(rival: Rival, port: int, options: argparse.Namespace) -> dict[str, Any]:
    """Start ``rival``, measure it, stop it."""
    texts = english(options.texts)
    asked = [post(rival.path, {**rival.body, "input": text}) for text in texts]
    questions = [text for text in texts if len(text) < 120][:60]
    lone = [post(rival.path, {**rival.body, "input": text}) for text in questions]
    log = (scratch_of(options.peers) / "server.log").open("wb")
    process = subprocess.Popen(rival.argv, env=rival.env, stdout=log, stderr=log)
    try:
        started = time.perf_counter()
        if not asyncio.run(_ready(rival, port, process)):
            raise SystemExit(
                f"{rival.name} is not ready: {Path(log.name).read_text(errors='replace')[-2000:]}"
            )
        ready = time.perf_counter() - started
        vector = asyncio.run(first_answer(port, asked[0]))["data"][0]["embedding"]
        many = asyncio.run(
            drive(port, asked, clients=options.clients, seconds=options.seconds, warm=options.warm)
        )
        alone = asyncio.run(drive(port, lone, clients=1, seconds=options.seconds / 3, warm=0.5))
        return {
            "many": many.figures(options.seconds),
            "lone": alone.figures(options.seconds / 3),
            "ready_seconds": round(ready, 2),
            "peak_mb": _peak_mb(process.pid),
            "vector": vector,
            "form": _forms(asyncio.run(first_answer(port, get(rival.about))))
            if rival.about
            else "",
        }
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


def main() -> None:
    options = _options()
    options.cores = pin(options.cores)
    scratch_of(options.peers).mkdir(parents=True, exist_ok=True)
    home = working_home("serve-peers")
    runs: dict[str, list[dict[str, Any]]] = {}
    for number in range(options.rounds):
        port = _free_port()
        rivals = [infinity_server(options, port=port), ondol_server(options, port=port, home=home)]
        for rival in rivals if number % 2 == 0 else rivals[::-1]:
            say(f"round {number + 1} of {options.rounds}: {rival.name}")
            runs.setdefault(rival.name, []).append(round_of(rival, port, options))
    figures = {name: _summary(rounds) for name, rounds in runs.items()}
    _print(figures)
    ours, peer = figures["ondol"], figures["infinity (torch)"]
    pairs = zip(runs["ondol"], runs["infinity (torch)"], strict=True)
    report(
        {
            "benchmark": "serve_peers",
            "baseline": "infinity (torch)",
            "ratio": round(
                statistics.median(
                    own["many"]["per_second"] / max(other["many"]["per_second"], 1e-9)
                    for own, other in pairs
                ),
                2,
            ),
            "same_vectors_cosine": round(
                _cosine(runs["ondol"][0]["vector"], runs["infinity (torch)"][0]["vector"]), 5
            ),
            "ondol": ours,
            "infinity": peer,
        },
        settings={
            key: str(value) if isinstance(value, Path) else value
            for key, value in vars(options).items()
        }
        | {"model": MODEL, "seed": 0},
    )


def _print(figures: Mapping[str, Mapping[str, Any]]) -> None:
    print(f"\n### {MODEL} over HTTP, one text a request\n")
    table(
        (
            "server",
            "requests/s",
            "best",
            "p50 ms",
            "p99 ms",
            "alone p50 / p99 ms",
            "peak MB",
            "bad",
        ),
        [
            (
                f"{name} ({found['form']})" if found["form"] else name,
                found["per_second"],
                found["best"],
                found["p50_ms"],
                found["p99_ms"],
                f"{found['lone_p50_ms']} / {found['lone_p99_ms']}",
                found["peak_mb"],
                found["wrong"],
            )
            for name, found in figures.items()
        ],
    )


def _summary(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def middle(part: str, key: str) -> float:
        return round(statistics.median(run[part][key] for run in rounds), 2)

    return {
        "per_second": middle("many", "per_second"),
        "best": max(run["many"]["per_second"] for run in rounds),
        "p50_ms": middle("many", "p50_ms"),
        "p99_ms": middle("many", "p99_ms"),
        "lone_p50_ms": middle("lone", "p50_ms"),
        "lone_p99_ms": middle("lone", "p99_ms"),
        "ready_seconds": statistics.median(run["ready_seconds"] for run in rounds),
        "peak_mb": max(run["peak_mb"] for run in rounds),
        "form": rounds[-1]["form"],
        "wrong": sum(run[part]["wrong"] for run in rounds for part in ("many", "lone")),
    }


async def _ready(rival: Rival, port: int, process: subprocess.Popen[bytes]) -> bool:
    until = time.perf_counter() + START_SECONDS
    while time.perf_counter() < until and process.poll() is None:
        if await answers_ok(port, rival.ready):
            return True
        await asyncio.sleep(0.1)
    return False


def _forms(about: Any) -> str:
    """Return the forms in service: what was measured is not always what was wished for."""
    slots = about.get("slots", []) if isinstance(about, dict) else []
    named = [f"{slot['purpose']} {slot['form']}" for slot in slots if slot.get("form")]
    return " / ".join(named) or str(about.get("form", "unknown"))


def _peak_mb(pid: int) -> int:
    """Return the most memory the server's process has had, its children's included."""
    total, pids = 0, [pid]
    while pids:
        current = pids.pop()
        status = Path(f"/proc/{current}/status").read_text()
        total += next(int(x.split()[1]) for x in status.splitlines() if x.startswith("VmHWM"))
        pids += map(int, Path(f"/proc/{current}/task/{current}/children").read_text().split())
    return round(total / 1024)


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    a, b = np.asarray(one), np.asarray(other)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="how often each server is started")
    parser.add_argument("--seconds", type=float, default=10, help="measured part of a round")
    parser.add_argument("--warm", type=float, default=2, help="seconds before it that do not count")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--cores", type=int, default=0, help="pin to so many cores (0: all)")
    parser.add_argument("--form", default="", help="form of ours; without it what tune chose")
    parser.add_argument("--peers", type=Path, default=default_peers(), help="their environment")
    parser.add_argument("--quick", action="store_true", help="one round of 3 s: proves it works")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.warm = 1, 3.0, 0.5
    return options


if __name__ == "__main__":
    main()
