"""Measure the store: search latency over many chunks, ingest rate, opening, catching up.

    python benchmarks/store.py [--chunks 100000] [--dimensions 384] [--seed 0] [--home DIR]

Random unit vectors; tokens drawn by Zipf's law from 60,000 words, 120 a chunk, 10 a query (frequent
words included, which is harder than real queries after a keyword analyser). The baseline of the same
run is the plain thing: one float32 matrix in memory, matmul, argpartition. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ondol.app.store_assembly import open_documents
from ondol.core.clock import SystemClock
from ondol.core.machine import describe
from ondol.core.types import Passage, ReadDocument
from ondol.store.documents import DocumentStore
from ondol.store.records import NewChunk

ROOT = Path(__file__).resolve().parent.parent
NAME = "bench"
PER_DOCUMENT = 10
WORDS = 60_000
LIMIT = 50


class Corpus:
    """Seeded documents of ``PER_DOCUMENT`` chunks with vectors and tokens."""

    def __init__(self, *, chunks: int, dimensions: int, seed: int) -> None:
        self.documents = chunks // PER_DOCUMENT
        self.random = np.random.default_rng(seed)
        vectors = self.random.standard_normal((chunks, dimensions), dtype=np.float32)
        self.vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        odds = 1 / np.arange(1, WORDS + 1)
        self.odds = odds / odds.sum()

    def tokens(self, count: int) -> list[str]:
        return [f"낱말{n}" for n in self.random.choice(WORDS, count, p=self.odds)]

    def document(self, number: int) -> tuple[ReadDocument, list[NewChunk], NDArray[np.float32]]:
        chunks: list[NewChunk] = []
        lines: list[str] = []
        start = 0
        for _ in range(PER_DOCUMENT):
            tokens = self.tokens(120)
            line = " ".join(tokens)
            chunks.append(NewChunk(Passage(line, start, start + len(line), 1), tokens))
            lines.append(line)
            start += len(line) + 1
        source = f"/corpus/{number}.txt"
        document = ReadDocument(
            source, f"{number}", "\n".join(lines), metadata={"part": number % 10}
        )
        place = (number % self.documents) * PER_DOCUMENT
        return document, chunks, self.vectors[place : place + PER_DOCUMENT]


def put(store: DocumentStore, corpus: Corpus, numbers: range) -> float:
    """Store documents one by one; return the seconds spent in the store alone."""
    spent = 0.0
    for number in numbers:
        document, chunks, vectors = corpus.document(number)
        started = time.perf_counter()
        store.put_document(NAME, document, digest="1", chunks=chunks, vectors=vectors)
        spent += time.perf_counter() - started
    return spent


def milliseconds(work: Callable[[], object], *, rounds: int) -> dict[str, float]:
    for _ in range(3):
        work()
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        taken.append((time.perf_counter() - started) * 1e3)
    p50, p95 = np.percentile(taken, (50, 95))
    return {"p50_ms": round(float(p50), 2), "p95_ms": round(float(p95), 2)}


def plain(matrix: NDArray[np.float32], query: NDArray[np.float32]) -> list[int]:
    scores = matrix @ query
    best = np.argpartition(-scores, LIMIT)[:LIMIT]
    return [int(i) for i in best[np.argsort(-scores[best])]]


def searches(store: DocumentStore, corpus: Corpus) -> dict[str, object]:
    dimensions = corpus.vectors.shape[1]
    queries = [q / np.linalg.norm(q) for q in corpus.random.standard_normal((64, dimensions))]
    vectors = cycle([query.astype(np.float32) for query in queries])
    words = cycle([corpus.tokens(10) for _ in range(64)])
    hits = [chunk for chunk, _ in store.search_vectors(NAME, next(vectors), limit=20)]
    part = {"part": 3}
    return {
        "vectors": milliseconds(
            lambda: store.search_vectors(NAME, next(vectors), limit=LIMIT), rounds=100
        ),
        "vectors_filtered": milliseconds(
            lambda: store.search_vectors(NAME, next(vectors), limit=LIMIT, filter=part), rounds=30
        ),
        "lexical": milliseconds(
            lambda: store.search_lexical(NAME, next(words), limit=LIMIT), rounds=64
        ),
        "lexical_filtered": milliseconds(
            lambda: store.search_lexical(NAME, next(words), limit=LIMIT, filter=part), rounds=30
        ),
        "chunks_20": milliseconds(lambda: store.chunks(NAME, hits), rounds=100),
        "baseline_vectors": milliseconds(lambda: plain(corpus.vectors, next(vectors)), rounds=100),
    }


def after_each_commit(store: DocumentStore, corpus: Corpus, *, rounds: int) -> dict[str, float]:
    """Time the first vector search after a document was added, and after one was replaced."""
    taken: dict[str, list[float]] = {"added": [], "replaced": []}
    for kind, first in (("added", corpus.documents), ("replaced", 0)):
        for number in range(first, first + rounds):
            put(store, corpus, range(number, number + 1))
            started = time.perf_counter()
            store.search_vectors(NAME, corpus.vectors[0], limit=LIMIT)
            taken[kind].append((time.perf_counter() - started) * 1e3)
    return {f"after_{kind}_p50_ms": round(float(np.median(t)), 2) for kind, t in taken.items()}


def first_search(home: Path, corpus: Corpus, *, resident_bytes: int = 2**29) -> float:
    """Return milliseconds from opening the store to its first vector search's end."""
    started = time.perf_counter()
    with open_documents(home, clock=SystemClock(), resident_bytes=resident_bytes) as store:
        store.search_vectors(NAME, corpus.vectors[0], limit=LIMIT)
        return round((time.perf_counter() - started) * 1e3, 1)


def run(home: Path, corpus: Corpus) -> dict[str, object]:
    chunks, dimensions = corpus.vectors.shape
    figures: dict[str, object] = {}
    with open_documents(home, clock=SystemClock()) as store:
        store.create_collection(NAME, embedder="random", dimensions=dimensions)
        spent = put(store, corpus, range(corpus.documents))
        figures["put_documents_per_second"] = round(corpus.documents / spent, 1)
        figures["put_chunks_per_second"] = round(chunks / spent, 1)
        found = [chunk for chunk, _ in store.search_vectors(NAME, corpus.vectors[7], limit=LIMIT)]
        halves = corpus.vectors.astype(np.float16).astype(np.float32)
        figures["same_as_plain"] = [c - 1 for c in found] == plain(halves, corpus.vectors[7])
        figures |= searches(store, corpus)
        figures |= after_each_commit(store, corpus, rounds=20)
        started = time.perf_counter()
        report = store.check()
        figures["check_ms"] = round((time.perf_counter() - started) * 1e3, 1)
        if not report.ok:
            raise SystemExit(str(report))
        started = time.perf_counter()
    figures["close_ms"] = round((time.perf_counter() - started) * 1e3, 1)
    figures["database_mb"] = round((home / "ondol.db").stat().st_size / 1e6, 1)
    figures["open_and_search_ms"] = first_search(home, corpus)
    for file in (home / "vectors").iterdir():
        file.unlink()
    figures["open_and_search_without_file_ms"] = first_search(home, corpus)
    with open_documents(home, clock=SystemClock(), resident_bytes=0) as store:
        query = corpus.vectors[0]
        figures["vectors_float16"] = milliseconds(
            lambda: store.search_vectors(NAME, query, limit=LIMIT), rounds=20
        )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--home", type=Path, help="a folder on the disk to measure")
    options = parser.parse_args()
    corpus = Corpus(chunks=options.chunks, dimensions=options.dimensions, seed=options.seed)
    with tempfile.TemporaryDirectory(dir=options.home) as home:
        figures = run(Path(home), corpus)
    for name, value in figures.items():
        print(f"{name:34} {value}")
    machine = describe()
    report = {
        "benchmark": "store",
        "chunks": options.chunks,
        "dimensions": options.dimensions,
        **figures,
        "baseline": "float32 matmul + argpartition",
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "commit": commit(),
        "cpu": machine.cpu,
        "threads": machine.cores,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "seed": options.seed,
    }
    print(json.dumps(report, ensure_ascii=False))


def commit() -> str:
    ran = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    return ran.stdout.strip() or "uncommitted"


if __name__ == "__main__":
    main()
