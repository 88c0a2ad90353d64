"""Search over 100,000 chunks as its users see it: over HTTP, query embedded, best hits with their text.

    python benchmarks/search_at_scale.py [--chunks 100000] [--synthetic] [--cache DIR] [--quick]

The chunks are windows of 300 characters over the shared Korean and English corpora, overlapping where
there is too little text; the queries are the sets' own. A server on loopback is asked one query after
another, by vectors alone, by keywords alone and by both; then by both while documents are ingested
in bulk, once by the server itself (an upload) and once by ``ondol ingest`` beside it. The baseline of
those is the quiet run in the same process. The embedding cache is off: every query is embedded. With ``--synthetic`` most vectors are perturbed ones
(see ``vectors.py``), which the result says. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from common import command, environment, ondol, report, table, working_home
from keywords_scale import analysed
from process_tree import megabytes
from vectors import NAME, PER_DOCUMENT, questions, vectors, windows

from ondol.app.store_assembly import open_documents
from ondol.core.clock import SystemClock
from ondol.core.types import Passage, ReadDocument
from ondol.store.records import NewChunk

MODES = ("dense", "lexical", "hybrid")
TOP_K = 10
WARM = 20
Timings = dict[str, float]


def fill(home: Path, texts: Sequence[str], rows: Any, tokens: Sequence[Sequence[str]]) -> None:
    """Store all chunks as an ingest would have: text, keywords and vectors."""
    settings = ondol("doctor", "--settings", home=home)["settings"]
    embedder = next(one["value"] for one in settings if one["key"] == "models.embedder")
    with open_documents(home, clock=SystemClock()) as store:
        store.create_collection(NAME, embedder=embedder, dimensions=rows.shape[1])
        for at in range(0, len(texts), PER_DOCUMENT):
            chunks, start = [], 0
            for text, words in zip(
                texts[at : at + PER_DOCUMENT], tokens[at : at + PER_DOCUMENT], strict=True
            ):
                chunks.append(NewChunk(Passage(text, start, start + len(text), 1), list(words)))
                start += len(text) + 1
            document = ReadDocument(
                f"/bench/{at}.txt", f"{at}", "\n".join(texts[at : at + PER_DOCUMENT])
            )
            store.put_document(
                NAME, document, digest="1", chunks=chunks, vectors=rows[at : at + PER_DOCUMENT]
            )


@contextmanager
def serving(home: Path) -> Iterator[tuple[str, int]]:
    """Run ``ondol serve`` over ``home``; yield its address and process id once it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        command(
            *("--set", f"server.port={port}", "--set", "generation.model=none"),
            *("--set", "cache.embeddings=off", "serve"),
        ),
        env=environment(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    base = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            try:
                if httpx.get(f"{base}/health/ready", timeout=5).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        yield base, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def asked(
    http: httpx.Client, queries: Sequence[str], mode: str, *, until: threading.Event | None = None
) -> list[float]:
    """Ask ``queries`` one after another, again and again until the event is set; return ms each."""
    taken: list[float] = []
    while True:
        for query in queries:
            started = time.perf_counter()
            response = http.post(
                f"/v1/collections/{NAME}/search",
                json={"query": query, "mode": mode, "top_k": TOP_K, "rerank": False},
            )
            taken.append((time.perf_counter() - started) * 1e3)
            if response.status_code != 200 or not response.json()["hits"]:
                raise SystemExit(f"search answered {response.status_code}: {response.text[:300]}")
            if until is not None and until.is_set():
                return taken
        if until is None:
            return taken


def quantiles(taken: Sequence[float]) -> Timings:
    p50, p95, p99 = np.percentile(taken, (50, 95, 99))
    return {
        "p50_ms": round(float(p50), 1),
        "p95_ms": round(float(p95), 1),
        "p99_ms": round(float(p99), 1),
        "queries": len(taken),
    }


def while_uploading(
    base: str, http: httpx.Client, queries: Sequence[str], texts: Sequence[str]
) -> Timings:
    """Ask while the server ingests ``texts`` as records of one upload."""
    body = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    over = threading.Event()
    taken_seconds: list[float] = []

    def upload() -> None:
        started = time.monotonic()
        with httpx.Client(base_url=base, timeout=1200) as other:
            file = {"files": ("bulk.jsonl", body, "application/x-ndjson")}
            response = other.post("/v1/collections/bulk/documents", files=file)
        taken_seconds.append(time.monotonic() - started)
        over.set()
        response.raise_for_status()

    worker = threading.Thread(target=upload)
    worker.start()
    taken = asked(http, queries, "hybrid", until=over)
    worker.join()
    return {**quantiles(taken), "ingested_per_second": round(len(texts) / taken_seconds[0], 1)}


def while_ingesting(
    home: Path, http: httpx.Client, queries: Sequence[str], texts: Sequence[str]
) -> Timings:
    """Ask while ``ondol ingest`` works in a process of its own over the same home."""
    over = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "other.jsonl"
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
        process = subprocess.Popen(
            command("ingest", str(file), "-c", "other", "--json"),
            env=environment(home),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started = time.monotonic()
        seconds: list[float] = []

        def wait() -> None:
            process.wait()
            seconds.append(time.monotonic() - started)
            over.set()

        worker = threading.Thread(target=wait)
        worker.start()
        taken = asked(http, queries, "hybrid", until=over)
        worker.join()
    if process.returncode:
        raise SystemExit(f"ondol ingest exited with {process.returncode}")
    return {**quantiles(taken), "ingested_per_second": round(len(texts) / seconds[0], 1)}


def create(base: str, name: str) -> None:
    httpx.post(f"{base}/v1/collections", json={"name": name}, timeout=60).raise_for_status()


def settled(pid: int, http: httpx.Client, queries: Sequence[str]) -> float:
    """Ask a little, then wait until the indexes that this began are made; return seconds.

    They are made in the background: made is when the server has been idle for three seconds.
    """
    started = time.monotonic()
    asked(http, queries[:WARM], "hybrid")
    idle = 0
    while idle < 3 and time.monotonic() - started < 900:
        before = busy_seconds(pid)
        time.sleep(1)
        idle = idle + 1 if busy_seconds(pid) - before < 0.1 else 0
    return time.monotonic() - started - idle


def busy_seconds(pid: int) -> float:
    """Return the processor time that ``pid`` has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(home: Path, options: argparse.Namespace) -> dict[str, Any]:
    queries = questions(options.queries, options.seed)
    bulk = windows(options.chunks + options.bulk)[-options.bulk :]
    figures: dict[str, Any] = {}
    with serving(home) as (base, pid), httpx.Client(base_url=base, timeout=120) as http:
        figures["indexes_ready_s"] = round(settled(pid, http, queries), 1)
        for mode in MODES:
            asked(http, queries[:WARM], mode)
            figures[mode] = quantiles([t for _ in range(3) for t in asked(http, queries, mode)])
        figures["server_mb"] = round(megabytes(pid))
        create(base, "bulk")
        figures["hybrid, an upload in the server"] = while_uploading(base, http, queries, bulk)
        figures["hybrid, ondol ingest beside it"] = while_ingesting(home, http, queries, bulk)
        figures["server_after_mb"] = round(megabytes(pid))
        figures["collection"] = httpx.get(f"{base}/v1/collections/{NAME}", timeout=60).json()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--bulk", type=int, default=1_500, help="records ingested meanwhile")
    parser.add_argument("--synthetic", action="store_true", help="embed a part, perturb the rest")
    parser.add_argument("--embedded", type=int, default=6_000, help="how many with --synthetic")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "ondol-vectors")
    parser.add_argument("--quick", action="store_true", help="6,000 chunks, 256 embedded")
    options = parser.parse_args()
    if options.quick:
        options.chunks, options.embedded, options.queries = 6_000, 256, 50
        options.synthetic, options.bulk = True, 200
    texts = windows(options.chunks)
    rows, _ = vectors(options, texts)
    tokens = analysed(texts, options.cache)
    home = working_home("scale")
    started = time.monotonic()
    fill(home, texts, rows, tokens)
    stored = time.monotonic() - started
    del texts, rows, tokens
    figures = {"store_s": round(stored, 1), **measure(home, options)}
    names = ("p50_ms", "p95_ms", "p99_ms", "queries", "ingested_per_second")
    table(
        ("search over HTTP", *names),
        [
            (key, *(value.get(name, "") for name in names))
            for key, value in figures.items()
            if isinstance(value, dict) and "p50_ms" in value
        ],
    )
    quiet = figures["hybrid"]["p99_ms"]
    report(
        {
            "benchmark": "search_at_scale",
            **figures,
            "baseline": "hybrid, nothing else going on",
            "p99_ratio": {
                key: round(value["p99_ms"] / quiet, 2)
                for key, value in figures.items()
                if key.startswith("hybrid, ")
            },
            "vectors": f"{options.embedded} embedded, the others perturbed"
            if options.synthetic
            else "all embedded",
        },
        settings={"chunks": options.chunks, "bulk": options.bulk, "seed": options.seed},
    )


if __name__ == "__main__":
    main()
