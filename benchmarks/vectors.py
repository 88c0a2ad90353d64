"""Measure vector search at size: exact, approximate in this process, and in PostgreSQL.

    python benchmarks/vectors.py [--chunks 100000] [--synthetic] [--postgres URL|start] [--quick]

The chunks are windows of 300 characters over the shared Korean and English corpora, overlapping
where there is too little text; the queries are the sets' own. Vectors are the embedder's; as it
needs minutes for each 10,000, ``--synthetic`` embeds 6,000 and makes the others by perturbing those
(cosine 0.94 with the original), which is said in the result. Embeddings are kept in ``--cache``.
Recall is against the exact scan of the same database. "While adding" has another process store
documents one after another. ``--postgres start`` runs the PostgreSQL of the tests. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from common import DATA, ROOT, report, table
from numpy.typing import NDArray

from ondol.app.store_assembly import open_documents
from ondol.core.clock import SystemClock
from ondol.core.types import Passage, ReadDocument
from ondol.store.documents import DocumentStore
from ondol.store.records import NewChunk
from ondol.store.vectors_ann import ABOVE, AnnVectors

Floats = NDArray[np.float32]
NAME = "bench"
WINDOW = 300
PER_DOCUMENT = 50
LIMIT = 50
COSINE = 0.94
FILTERS: dict[str, dict[str, Any] | None] = {
    "all": None,
    "1%": {"part": 0},
    "10%": {"part": {"lt": 10}},
    "50%": {"part": {"lt": 50}},
}


@dataclass(frozen=True)
class Contestant:
    """A vector search and what it may hold in memory."""

    name: str
    resident_bytes: int = 2**29
    approximate: bool = False
    postgres: str = ""

    def open(self, home: Path, *, above: int) -> DocumentStore:
        def make(database: Any, exact: Any) -> Any:
            if self.postgres:
                from ondol.store.vectors_pgvector import PgVectors

                return PgVectors(database, self.postgres, index_above=min(above, 10_000))
            if self.approximate:
                return AnnVectors(database, exact, home / "vectors", above=above)
            return exact

        return open_documents(
            home, clock=SystemClock(), resident_bytes=self.resident_bytes, vector_search=make
        )


def texts(folder: str, file: str) -> list[str]:
    lines = (DATA / folder / file).read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def windows(count: int) -> list[str]:
    """Cut the shared corpora into ``count`` windows, as far apart as the text allows."""
    folders = sorted(path.parent.name for path in DATA.glob("*/corpus.jsonl"))
    if not folders:
        raise SystemExit(f"skipped: no corpora in {DATA}; set ONDOL_SHARED_DATA")
    text = "\n".join(part for folder in folders for part in texts(folder, "corpus.jsonl"))
    step = (len(text) - WINDOW) / max(1, count - 1)
    return [text[round(n * step) : round(n * step) + WINDOW] for n in range(count)]


def questions(count: int, seed: int) -> list[str]:
    folders = sorted(path.parent.name for path in DATA.glob("*/queries.jsonl"))
    found = [part for folder in folders for part in texts(folder, "queries.jsonl")]
    order = np.random.default_rng(seed).permutation(len(found))[:count]
    return [found[n][:WINDOW] for n in order]


async def embedded(passages: Sequence[str], queries: Sequence[str]) -> tuple[Floats, Floats]:
    """Embed with the embedder that the settings name."""
    from ondol.app.components import Parts
    from ondol.app.container import Container
    from ondol.core.settings import load_settings

    flags = {"generation.model": "none", "cache.embeddings": "off"}
    parts = Parts(reranker=False, keywords=False, generator=False)
    async with Container.open(load_settings(flags=flags), parts=parts) as container:
        service = container.embedding
        rows = []
        for start in range(0, len(passages), 64):
            part = passages[start : start + 64]
            rows.append((await service.embed(part, role="document", truncate=True)).vectors)
            print(f"\rembedded {start + len(part)} of {len(passages)}", end="", file=sys.stderr)
        print(file=sys.stderr)
        return np.concatenate(rows), (
            await service.embed(queries, role="query", truncate=True)
        ).vectors


def perturbed(rows: Floats, count: int, seed: int) -> Floats:
    """Return ``count`` unit vectors: ``rows``, then each again at ``COSINE`` from itself."""
    random = np.random.default_rng(seed)
    made = [rows]
    while sum(map(len, made)) < count:
        noise = random.standard_normal(rows.shape, dtype=np.float32)
        noise -= (noise * rows).sum(axis=1, keepdims=True) * rows
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        made.append(COSINE * rows + np.float32(np.sqrt(1 - COSINE**2)) * noise)
    return np.concatenate(made)[:count]


def vectors(options: argparse.Namespace, passages: list[str]) -> tuple[Floats, Floats]:
    count = min(options.embedded, len(passages)) if options.synthetic else len(passages)
    kept = options.cache / f"e{count}of{len(passages)}-q{options.queries}-s{options.seed}.npz"
    if not kept.exists():
        chosen = [passages[n * len(passages) // count] for n in range(count)]
        rows, queries = asyncio.run(embedded(chosen, questions(options.queries, options.seed)))
        options.cache.mkdir(parents=True, exist_ok=True)
        np.savez(kept, rows=rows, queries=queries)
    with np.load(kept) as found:
        return perturbed(found["rows"], len(passages), options.seed), found["queries"]


def put(store: DocumentStore, number: int, passages: Sequence[str], rows: Floats) -> None:
    text = "\n".join(passages)
    chunks, start = [], 0
    for passage in passages:
        chunks.append(NewChunk(Passage(passage, start, start + len(passage), 1), ()))
        start += len(passage) + 1
    document = ReadDocument(
        f"/bench/{number}.txt", f"{number}", text, metadata={"part": number % 100}
    )
    store.put_document(NAME, document, digest="1", chunks=chunks, vectors=rows)


def fill(home: Path, passages: list[str], rows: Floats) -> float:
    """Store everything; return seconds."""
    started = time.perf_counter()
    with open_documents(home, clock=SystemClock()) as store:
        store.create_collection(NAME, embedder="e5", dimensions=rows.shape[1])
        for number in range(-(-len(rows) // PER_DOCUMENT)):
            part = slice(number * PER_DOCUMENT, (number + 1) * PER_DOCUMENT)
            put(store, number, passages[part], rows[part])
    return time.perf_counter() - started


def timed(store: DocumentStore, queries: Floats, **options: Any) -> tuple[list[float], list[Any]]:
    taken, hits = [], []
    for query in queries:
        started = time.perf_counter()
        hits.append(store.search_vectors(NAME, query, limit=LIMIT, **options))
        taken.append((time.perf_counter() - started) * 1e3)
    return taken, hits


def recall(hits: list[Any], best: list[Any], depth: int) -> float:
    same = wanted = 0
    for found, exact in zip(hits, best, strict=True):
        ids = {chunk for chunk, _ in exact[:depth]}
        same += len(ids & {chunk for chunk, _ in found[:depth]})
        wanted += len(ids)
    return round(same / max(1, wanted), 4)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 1e6, 1)


@contextmanager
def adding(home: Path, source: Path) -> Iterator[subprocess.Popen[str]]:
    """Have another process add the rows of ``source`` again, document by document, until the end."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--add", str(home), "--rows", str(source)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "ONDOL_SHARED_DATA": str(DATA)},
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def add(home: Path, source: Path) -> None:
    rows = np.load(source)
    with open_documents(home, clock=SystemClock(), resident_bytes=0) as store:
        for number in cycle(range(-(-len(rows) // PER_DOCUMENT))):
            part = rows[number * PER_DOCUMENT : (number + 1) * PER_DOCUMENT]
            put(store, 10**6 + number, [f"추가 {n}" for n in range(len(part))], part)
            print(number, flush=True)


def measure(
    contestant: Contestant,
    home: Path,
    queries: Floats,
    *,
    best: dict[str, list[Any]],
    above: int,
    extra: Path,
) -> dict[str, Any]:
    """Return the figures of one contestant; ``best`` is filled by the first, which is exact."""
    figures: dict[str, Any] = {}
    with contestant.open(home, above=above) as store:
        before = resident_mb()
        started = time.perf_counter()
        state = store.refresh_vectors(NAME)
        figures["build_s"] = round(time.perf_counter() - started, 2)
        timed(store, queries[:20])
        for name, filter in FILTERS.items():
            taken, hits = timed(store, queries, filter=filter)
            best.setdefault(name, hits)
            figures[name] = {
                "p50_ms": round(float(np.percentile(taken, 50)), 2),
                "p95_ms": round(float(np.percentile(taken, 95)), 2),
                "recall_at_10": recall(hits, best[name], 10),
                "recall_at_50": recall(hits, best[name], 50),
            }
        quiet = [ms for _ in range(3) for ms in timed(store, queries)[0]]
        state = store.vector_state(NAME)
        figures["kind"], figures["indexed"] = state.kind, state.indexed
        figures["through_index"] = state.approximate
        figures["index_mb"] = round(state.memory_bytes / 1e6, 1)
        figures["disk_mb"] = round(state.disk_bytes / 1e6, 1)
        figures["rss_grew_mb"] = round(resident_mb() - before, 1)
        with adding(home, extra):
            busy = [ms for _ in range(3) for ms in timed(store, queries)[0]]
        figures["p99_quiet_ms"] = round(float(np.percentile(quiet, 99)), 2)
        figures["p99_adding_ms"] = round(float(np.percentile(busy, 99)), 2)
        added = [source for source in store.digests(NAME) if source.startswith("/bench/1000")]
        figures["added_meanwhile"] = len(added) * PER_DOCUMENT
        store.delete_sources(NAME, added)
    started = time.perf_counter()
    with contestant.open(home, above=above) as store:
        store.search_vectors(NAME, queries[0], limit=LIMIT)
        figures["first_search_ms"] = round((time.perf_counter() - started) * 1e3, 1)
        store.refresh_vectors(NAME)
        figures["ready_again_s"] = round(time.perf_counter() - started, 2)
    return figures


def contestants(postgres: str) -> list[Contestant]:
    found = [
        Contestant("exact, float32"),
        Contestant("exact, float16 mapped", resident_bytes=0),
        Contestant("ann, float32", approximate=True),
        Contestant("ann, float16 mapped", resident_bytes=0, approximate=True),
    ]
    return [*found, Contestant("pgvector", resident_bytes=0, postgres=postgres)][
        : None if postgres else -1
    ]


@contextmanager
def postgres(wanted: str) -> Iterator[str]:
    if wanted != "start":
        yield wanted
        return
    sys.path.insert(0, str(ROOT))
    from tests.contract.postgres_server import PostgresServer

    server = PostgresServer()
    try:
        yield server.url()
    finally:
        server.remove()


def run(options: argparse.Namespace) -> dict[str, Any]:
    passages = windows(options.chunks)
    rows, queries = vectors(options, passages)
    results: dict[str, Any] = {}
    best: dict[str, list[Any]] = {}
    with tempfile.TemporaryDirectory(dir=options.home) as folder, postgres(options.postgres) as url:
        home, extra = Path(folder) / "home", Path(folder) / "extra.npy"
        np.save(extra, perturbed(rows[-2000:], 4000, options.seed + 1)[2000:])
        stored = fill(home, passages, rows)
        for contestant in contestants(url):
            results[contestant.name] = measure(
                contestant, home, queries, best=best, above=options.above, extra=extra
            )
    return {"store_s": round(stored, 1), "dimensions": rows.shape[1], "searches": results}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--synthetic", action="store_true", help="embed a part, perturb the rest")
    parser.add_argument("--embedded", type=int, default=6_000, help="how many with --synthetic")
    parser.add_argument("--above", type=int, default=ABOVE, help="rows from which a graph is used")
    parser.add_argument("--postgres", default="", help="a URL, or 'start'")
    parser.add_argument("--quick", action="store_true", help="6,000 chunks, 256 of them embedded")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--home", type=Path, help="a folder on the disk to measure")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "ondol-vectors")
    parser.add_argument("--add", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.add:
        add(options.add, options.rows)
        return
    if options.quick:
        options.chunks, options.embedded, options.queries = 6_000, 256, 50
        options.synthetic, options.above = True, 2_000
    figures = run(options)
    table(
        ("search", "p50", "p95", "recall@10", "1% p95", "10% p95", "50% p95", "build s",
         "MB", "p99 quiet", "p99 adding"),
        [
            (name, f["all"]["p50_ms"], f["all"]["p95_ms"], f["all"]["recall_at_10"],
             *(f[part]["p95_ms"] for part in ("1%", "10%", "50%")), f["build_s"], f["index_mb"],
             f["p99_quiet_ms"], f["p99_adding_ms"])
            for name, f in figures["searches"].items()
        ],
    )  # fmt: skip
    baseline = figures["searches"]["exact, float32"]["all"]["p50_ms"]
    report(
        {
            "benchmark": "vectors",
            **figures,
            "baseline": "exact, float32",
            "p50_ratio": {
                name: round(found["all"]["p50_ms"] / baseline, 3)
                for name, found in figures["searches"].items()
            },
            "vectors": f"{options.embedded} embedded, the others perturbed at cosine {COSINE}"
            if options.synthetic
            else "all embedded",
        },
        settings={
            "chunks": options.chunks,
            "queries": options.queries,
            "limit": LIMIT,
            "above": options.above,
            "seed": options.seed,
        },
    )


if __name__ == "__main__":
    main()
