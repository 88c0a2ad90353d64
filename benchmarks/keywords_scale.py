"""Measure keyword search at size: postings in memory beside FTS5, over real text.

    python benchmarks/keywords_scale.py [--chunks 100000] [--queries 600] [--cache DIR] [--quick]

The chunks are windows of 300 characters over the shared Korean and English corpora, overlapping where
there is too little text; the queries are the sets' own, 300 characters at most. Nothing is embedded: every chunk has
the same vector. Side by side in one run: FTS5 (``before``), postings (``after``), and whether both
find the same chunks. "While adding" has another process store documents one after another. Analysed
chunks are kept in ``--cache``. The last line is JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from common import DATA, ROOT, report, table
from vectors import questions, windows

from ondol.app.store_assembly import open_documents
from ondol.core.clock import SystemClock
from ondol.core.types import Passage, ReadDocument
from ondol.language.korean import RULE, KeywordAnalyzer
from ondol.store import lexical
from ondol.store.documents import DocumentStore
from ondol.store.records import NewChunk

NAME = "bench"
PER_DOCUMENT = 50
LIMIT = 50
SEED = 0
UNIT = np.eye(1, 8, dtype=np.float32)


def analysed(texts: Sequence[str], cache: Path | None) -> list[list[str]]:
    """Return the tokens of every text, from the cache where these texts were analysed before."""
    digest = hashlib.sha256("\n".join([RULE, *texts]).encode()).hexdigest()[:16]
    file = cache / f"tokens-{digest}.txt" if cache is not None else None
    if file is not None and file.exists():
        return [line.split(" ") if line else [] for line in file.read_text("utf-8").split("\n")]
    analyzer = KeywordAnalyzer()
    found: list[list[str]] = []
    for at in range(0, len(texts), 2048):
        found += analyzer.tokens_many(texts[at : at + 2048])
        print(f"\ranalysed {len(found)} of {len(texts)}", end="", file=sys.stderr)
    print(file=sys.stderr)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(" ".join(tokens) for tokens in found), "utf-8")
    return found


def fill(store: DocumentStore, texts: Sequence[str], tokens: Sequence[Sequence[str]]) -> None:
    store.create_collection(NAME, embedder="none", dimensions=UNIT.shape[1], exist_ok=True)
    for at in range(0, len(texts), PER_DOCUMENT):
        put(store, at, texts[at : at + PER_DOCUMENT], tokens[at : at + PER_DOCUMENT])


def put(
    store: DocumentStore, number: int, texts: Sequence[str], tokens: Sequence[Sequence[str]]
) -> None:
    chunks: list[NewChunk] = []
    start = 0
    for text, words in zip(texts, tokens, strict=True):
        chunks.append(NewChunk(Passage(text, start, start + len(text), None), list(words)))
        start += len(text) + 1
    document = ReadDocument(
        f"/{number}", f"{number}", "\n".join(texts), metadata={"part": number % 10}
    )
    vectors = np.repeat(UNIT, len(chunks), axis=0)
    store.put_document(NAME, document, digest="1", chunks=chunks, vectors=vectors)


def milliseconds(work: Callable[[Sequence[str]], Any], queries: Sequence[Sequence[str]]) -> Any:
    for query in queries[:20]:
        work(query)
    taken = []
    for query in queries:
        started = time.perf_counter()
        work(query)
        taken.append((time.perf_counter() - started) * 1e3)
    p50, p95, p99 = np.percentile(taken, (50, 95, 99))
    return {
        "p50_ms": round(float(p50), 2),
        "p95_ms": round(float(p95), 2),
        "p99_ms": round(float(p99), 2),
        "max_ms": round(max(taken), 2),
    }


def pss_mb() -> float:
    """Return this process's proportional memory in megabytes."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


@contextmanager
def adding(home: Path) -> Iterator[None]:
    """Have another process store documents of 10 chunks, one after another."""
    child = subprocess.Popen(
        [sys.executable, __file__, "--add-to", str(home)], stdout=subprocess.PIPE, cwd=ROOT
    )
    try:
        if child.stdout is not None:
            child.stdout.readline()  # it has begun
        yield
    finally:
        child.terminate()
        child.wait()


def add(home: Path) -> None:
    texts = windows(2_000)
    tokens = [text.split() or ["x"] for text in texts]
    with open_documents(home, clock=SystemClock()) as store:
        print("adding", flush=True)
        number = 10_000_000
        while True:
            at = number * 10 % len(texts)
            put(store, number, texts[at : at + 10], tokens[at : at + 10])
            number += 1


def same(one: Sequence[tuple[int, float]], other: Sequence[tuple[int, float]]) -> bool:
    """Whether two rankings have the same scores (so chunks of equal score may change places)."""
    ours, theirs = ([score for _, score in ranking] for ranking in (one, other))
    return len(ours) == len(theirs) and bool(np.allclose(ours, theirs, rtol=1e-6))


def measure(home: Path, queries: Sequence[Sequence[str]], *, slow: int) -> dict[str, Any]:
    """Return the figures of both ways over the store in ``home``; FTS5 answers ``slow`` queries."""
    with open_documents(home, clock=SystemClock()) as store:

        def search(query: Sequence[str]) -> list[tuple[int, float]]:
            return store.search_lexical(NAME, query, limit=LIMIT)

        few = queries[:slow]
        with closing(sqlite3.connect(home / "ondol.db")) as connection:
            connection.execute("PRAGMA cache_size = -16000")

            def through_fts5(query: Sequence[str]) -> list[tuple[int, float]]:
                asked = lexical.asked(query)
                return lexical.search(connection, 1, asked, limit=LIMIT, condition=None)

            before = milliseconds(through_fts5, few)
            wanted = [through_fts5(query) for query in few]
        memory = pss_mb()
        started = time.perf_counter()
        state = store.refresh_keywords(NAME)
        built = time.perf_counter() - started
        memory = pss_mb() - memory
        agree = [same(search(query), other) for query, other in zip(few, wanted, strict=True)]
        part = {"part": 3}
        figures: dict[str, Any] = {
            "chunks": state.chunks,
            "before": before,
            "after": milliseconds(search, queries),
            "after_filtered": milliseconds(
                lambda query: store.search_lexical(NAME, query, limit=LIMIT, filter=part),
                queries[: len(queries) // 3],
            ),
            "same_share": round(sum(agree) / len(agree), 4),
            "postings_mb": round(state.memory_bytes / 1e6, 1),
            "process_grew_mb": round(memory, 1),
            "build_seconds": round(built, 2),
        }
        with adding(home):
            figures["after_while_adding"] = milliseconds(search, queries)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=600)
    parser.add_argument("--cache", type=Path, help="keep analysed chunks here for the next run")
    parser.add_argument("--home", type=Path, help="a folder on the disk to measure")
    parser.add_argument("--quick", action="store_true", help="10,000 chunks and 100 queries")
    parser.add_argument("--add-to", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.add_to is not None:
        add(options.add_to)
        return
    chunks, count = (10_000, 100) if options.quick else (options.chunks, options.queries)
    texts = windows(chunks)
    tokens = analysed(texts, options.cache)
    analyzer = KeywordAnalyzer(threads=1)
    queries = [analyzer.query_tokens(query) for query in questions(count, SEED)]
    with tempfile.TemporaryDirectory(dir=options.home) as folder:
        with open_documents(Path(folder), clock=SystemClock()) as store:
            fill(store, texts, tokens)
        mean = sum(map(len, tokens)) / len(tokens)
        del texts, tokens, analyzer
        figures = measure(Path(folder), queries, slow=min(len(queries), 150))
    names = ("p50_ms", "p95_ms", "p99_ms", "max_ms")
    table(
        ("keyword search", *names),
        [
            (key, *(value[n] for n in names))
            for key, value in figures.items()
            if isinstance(value, dict)
        ],
    )
    report(
        {
            "benchmark": "keywords_scale",
            **figures,
            "tokens_a_chunk": round(mean, 1),
            "terms_a_query": round(sum(map(len, queries)) / len(queries), 1),
            "baseline": "FTS5 bm25()",
        },
        settings={"data": str(DATA.name), "limit": LIMIT, "seed": SEED, "window": 300},
    )


if __name__ == "__main__":
    main()
