"""A server under many mixed clients for minutes: errors by status, memory over time.

Clients embed, rerank, search, chat and ask in a seeded mix over real HTTP; 429 is a right answer,
anything else but 200 is an error. Memory is the server's and its generator's together, first
minute against last. Run: ``python benchmarks/soak.py [--minutes 5] [--clients 32]``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import httpx
from common import ROOT, command, environment, ondol, report, table, working_home

DEMO = ROOT / "examples" / "demo"


def resident_mb(pid: int) -> float:
    """Return the resident memory of ``pid`` and its children in MB."""
    total, pids = 0.0, [pid]
    while pids:
        current = pids.pop()
        try:
            status = Path(f"/proc/{current}/status").read_text()
            children = Path(f"/proc/{current}/task/{current}/children").read_text().split()
        except OSError:
            continue
        total += (
            next((int(x.split()[1]) for x in status.splitlines() if x.startswith("VmRSS")), 0)
            / 1024
        )
        pids += [int(child) for child in children]
    return total


def requests(chance: random.Random, questions: list[str]) -> tuple[str, str, dict[str, Any]]:
    """Return (kind, path, body) of the next request of a client."""
    question = chance.choice(questions)
    kind = chance.choices(("embed", "search", "rerank", "chat", "ask"), (35, 35, 15, 8, 7))[0]
    bodies: dict[str, tuple[str, dict[str, Any]]] = {
        "embed": (
            "/v1/embeddings",
            {"model": "multilingual-e5-small", "input": [question] * chance.randint(1, 4)},
        ),
        "search": ("/v1/collections/demo/search", {"query": question}),
        "rerank": (
            "/v1/rerank",
            {"model": "ms-marco-minilm-l12-v2", "query": question, "documents": questions[:8]},
        ),
        "chat": (
            "/v1/chat/completions",
            {
                "model": "auto",
                "messages": [{"role": "user", "content": question}],
                "max_tokens": 16,
            },
        ),
        "ask": ("/v1/collections/demo/ask", {"question": question, "stream": True}),
    }
    path, body = bodies[kind]
    return kind, path, body


async def client(
    base: str,
    number: int,
    until: float,
    questions: list[str],
    seen: dict[str, Counter[int]],
    times: dict[str, list[float]],
    errors: list[str],
) -> None:
    chance = random.Random(number)
    async with httpx.AsyncClient(base_url=base, timeout=180) as http:
        while time.monotonic() < until:
            kind, path, body = requests(chance, questions)
            started = time.monotonic()
            try:
                response = await http.post(path, json=body)
            except httpx.HTTPError as error:
                seen[kind][0] += 1
                errors.append(f"{kind}: {error!r}")
                continue
            seen[kind][response.status_code] += 1
            if response.status_code == 200:
                times[kind].append(time.monotonic() - started)
                if kind == "ask" and "event: error" in response.text:
                    seen[kind][-1] += 1
                    errors.append(f"ask stream: {response.text[-300:]}")
            elif response.status_code == 429:
                await asyncio.sleep(min(float(response.headers["retry-after"]), 5))
            else:
                errors.append(f"{kind} {response.status_code}: {response.text[:200]}")


async def load(
    base: str, pid: int, options: argparse.Namespace, questions: list[str]
) -> dict[str, Any]:
    seen: dict[str, Counter[int]] = defaultdict(Counter)
    times: dict[str, list[float]] = defaultdict(list)
    errors: list[str] = []
    memory: list[float] = []
    until = time.monotonic() + options.minutes * 60

    async def watch() -> None:
        while time.monotonic() < until:
            memory.append(resident_mb(pid))
            await asyncio.sleep(1)

    await asyncio.gather(
        watch(),
        *(client(base, n, until, questions, seen, times, errors) for n in range(options.clients)),
    )
    edge = max(1, len(memory) // 5)
    first, last = statistics.median(memory[edge : 2 * edge]), statistics.median(memory[-edge:])
    table(
        ("request", "200", "429", "other", "p50 s", "p95 s"),
        [
            (
                kind,
                counts[200],
                counts[429],
                sum(counts.values()) - counts[200] - counts[429],
                *(
                    f"{statistics.quantiles(times[kind], n=20)[i]:.2f}"
                    if len(times[kind]) > 1
                    else "-"
                    for i in (9, 18)
                ),
            )
            for kind, counts in sorted(seen.items())
        ],
    )
    for error in errors[:10]:
        print("error:", error)
    return {
        "requests": sum(sum(c.values()) for c in seen.values()),
        "ok": sum(c[200] for c in seen.values()),
        "refused_429": sum(c[429] for c in seen.values()),
        "errors": len(errors),
        "rss_mb_second_fifth": round(first),
        "rss_mb_last_fifth": round(last),
        "rss_ratio": round(last / first, 3),
        "rss_mb_max": round(max(memory)),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--clients", type=int, default=32)
    options = parser.parse_args()
    home = working_home("soak")
    files = [DEMO / name for name in ("work_rules_ko.pdf", "handbook_en.md", "reviews.jsonl")]
    ondol("ingest", *map(str, files), "-c", "demo", home=home)
    questions = [
        json.loads(line)["question"]
        for line in (DEMO / "questions.jsonl").read_text("utf-8").splitlines()
    ]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        command("serve", "--port", str(port)), env=environment(home), stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            try:
                if httpx.get(f"{base}/health/ready").status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            time.sleep(0.1)
        figures = asyncio.run(load(base, server.pid, options, questions))
        figures["ready_after"] = httpx.get(f"{base}/health/ready").status_code == 200
    finally:
        os.kill(server.pid, signal.SIGTERM)
        figures_exit = server.wait(60)
    report({**figures, "exit_code": figures_exit}, settings=vars(options))


if __name__ == "__main__":
    main()
