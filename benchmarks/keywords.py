"""Measure BM25 over Ondol's keywords on BEIR folders: quality, throughput, load time, memory.

    python benchmarks/keywords.py [--data ../shared/data] [--datasets ko_korquad …] [--chunks]

Each document (title and text) is one row of an SQLite FTS5 table (k1 = 1.2, b = 0.75), each query
the OR of its keywords; ``--chunks`` indexes passages instead and scores a document by its best one.
The baseline of the same run is words at white space. Deterministic: nothing is sampled. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import resource
import sqlite3
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ondol.core.machine import describe
from ondol.core.types import ReadDocument
from ondol.text.chunking import chunk
from ondol.text.korean import KeywordAnalyzer
from ondol.text.readers import ReadLimits, read

DATASETS = (
    "ko_fire_petitions",
    "ko_law_precedents",
    "ko_korquad",
    "ko_law_statutes",
    "en_scifact_subset",
)
ROOT = Path(__file__).resolve().parent.parent
Tokenise = Callable[[Sequence[str]], list[list[str]]]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A BEIR folder: rows to index with the document each belongs to, queries, judgements."""

    owners: list[str]
    rows: list[str]
    queries: dict[str, str]
    judged: dict[str, dict[str, int]]


def load(folder: Path, *, chunks: bool) -> Dataset:
    owners: list[str] = []
    rows: list[str] = []
    for item in read(folder / "corpus.jsonl", limits=ReadLimits()):
        if not isinstance(item, ReadDocument):
            raise SystemExit(f"{item.source}: {item.error.message}")
        texts = [item.text]
        if chunks:
            texts = [p.text for p in chunk(item, target_chars=400, overlap_chars=60)]
        for text in texts:
            owners.append(item.source.partition("#")[2])
            rows.append(f"{item.title}\n{text}".strip())
    lines = (folder / "queries.jsonl").read_text("utf-8").splitlines()
    queries = {query["_id"]: query["text"] for query in map(json.loads, lines)}
    judged: dict[str, dict[str, int]] = {}
    for line in (folder / "qrels.tsv").read_text("utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        judged.setdefault(query, {})[document] = int(grade)
    return Dataset(owners, rows, queries, judged)


def ndcg_at_10(data: Dataset, rows: Sequence[list[str]], queries: Mapping[str, list[str]]) -> float:
    database = sqlite3.connect(":memory:")
    database.execute(
        "create virtual table rows using fts5(words, tokenize='unicode61 remove_diacritics 0')"
    )
    database.executemany("insert into rows values (?)", ((" ".join(row),) for row in rows))
    gains = [
        gain(ranking(database, queries[query], data.owners), judged)
        for query, judged in data.judged.items()
    ]
    database.close()
    return sum(gains) / len(gains)


def ranking(database: sqlite3.Connection, words: Sequence[str], owners: Sequence[str]) -> list[str]:
    match = " OR ".join('"' + word.replace('"', '""') + '"' for word in words)
    if not match:
        return []
    found = database.execute(
        "select rowid from rows where rows match ? order by bm25(rows), rowid limit 100", (match,)
    )
    return list(dict.fromkeys(owners[row - 1] for (row,) in found))[:10]


def gain(ranked: Sequence[str], judged: Mapping[str, int]) -> float:
    def discounted(grades: Sequence[int]) -> float:
        return sum((2.0**g - 1) / math.log2(rank + 2) for rank, g in enumerate(grades[:10]))

    ideal = discounted(sorted(judged.values(), reverse=True))
    return discounted([judged.get(document, 0) for document in ranked]) / ideal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--datasets", nargs="+", default=DATASETS)
    parser.add_argument("--chunks", action="store_true")
    options = parser.parse_args()
    before = rss_mb()
    analyzer = KeywordAnalyzer()
    started = time.perf_counter()
    analyzer.warm_up()
    loaded = time.perf_counter() - started
    memory = rss_mb() - before
    print(f"analyzer ready in {loaded:.2f} s, {memory:.0f} MB")
    figures: dict[str, dict[str, float]] = {}
    for name in options.datasets:
        data = load(options.data / name, chunks=options.chunks)
        started = time.perf_counter()
        rows = analyzer.tokens_many(data.rows)
        seconds = time.perf_counter() - started
        queries = {key: analyzer.query_tokens(text) for key, text in data.queries.items()}
        plain = {key: text.lower().split() for key, text in data.queries.items()}
        figures[name] = {
            "ndcg_at_10": round(ndcg_at_10(data, rows, queries), 4),
            "whitespace_ndcg_at_10": round(
                ndcg_at_10(data, [row.lower().split() for row in data.rows], plain), 4
            ),
            "rows": len(data.rows),
            "queries": len(data.judged),
            "rows_per_second": round(len(data.rows) / seconds, 1),
            "chars_per_second": round(sum(map(len, data.rows)) / seconds),
        }
        print(f"{name:20}", figures[name])
    machine = describe()
    report = {
        "benchmark": "keywords",
        "chunks": options.chunks,
        "datasets": figures,
        "load_seconds": round(loaded, 2),
        "load_mb": round(memory),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "baseline": "whitespace",
        "commit": commit(),
        "cpu": machine.cpu,
        "threads": machine.cores,
        "python": platform.python_version(),
        "seed": None,
    }
    print(json.dumps(report, ensure_ascii=False))


def rss_mb() -> float:
    resident = int(Path("/proc/self/statm").read_text().split()[1])
    return resident * resource.getpagesize() / 1024**2


def commit() -> str:
    ran = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    return ran.stdout.strip() or "uncommitted"


if __name__ == "__main__":
    main()
