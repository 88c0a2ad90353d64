"""Measure BM25 over Ondol's keywords on BEIR folders: quality, throughput, load time, memory.

    python benchmarks/keywords.py [--data ../shared/data] [--datasets ko_korquad …] [--chunks]

Each document (title and text) is one row of an SQLite FTS5 table (k1 = 1.2, b = 0.75), each query
the OR of its keywords; ``--chunks`` indexes passages instead and scores a document by its best one.
The baseline of the same run is words at white space, and Kiwi as it is shipped for seconds and memory
(PSS, each in a process of its own). ``choose`` and ``report`` are halves of the queries by a hash of
their id. Deterministic: nothing is sampled. The last line is JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ondol.core.machine import describe
from ondol.core.types import ReadDocument
from ondol.documents.chunking.chunking import chunk
from ondol.documents.readers import ReadLimits, read
from ondol.language.korean import KeywordAnalyzer
from ondol.language.synonyms import Synonyms, law_groups

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


def half(query: str) -> str:
    """Return the half a query belongs to: settings are chosen on one, the other is reported."""
    return "choose" if hashlib.sha256(query.encode()).digest()[0] % 2 else "report"


def only(data: Dataset, wanted: str) -> Dataset:
    judged = {key: grades for key, grades in data.judged.items() if half(key) == wanted}
    return replace(data, judged=judged)


def expanded(analyzer: KeywordAnalyzer, text: str, tokens: list[str]) -> list[str]:
    """Return the tokens twice and, once, those of other names of the laws that a query names."""
    others = [t for other in LAWS.others(text) for t in analyzer.query_tokens(other)]
    more = [token for token in dict.fromkeys(others) if token not in tokens]
    return [*tokens, *tokens, *more] if more else tokens


LAWS = Synonyms(law_groups(), to_first=True)

_LOAD = """
import json, sys, time
def pss():
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
import kiwipiepy
from ondol.language.korean import KeywordAnalyzer
before, started = pss(), time.perf_counter()
if sys.argv[1] == "shipped":
    kiwi = kiwipiepy.Kiwi()
    kiwi.tokenize("온돌")
    ask = kiwi.tokenize
else:
    analyzer = KeywordAnalyzer()
    if sys.argv[1] == "english":
        analyzer.query_tokens("How long is the leave?")
    else:
        analyzer.warm_up()
    ask = analyzer.query_tokens
loaded, memory = time.perf_counter() - started, pss() - before
started = time.perf_counter()
ask("How long is the leave?" if sys.argv[1] == "english" else "연차휴가는 며칠인가요?")
print(json.dumps({"load_seconds": round(loaded, 3), "load_pss_mb": round(memory, 1),
                  "next_query_ms": round((time.perf_counter() - started) * 1e3, 2)}))
"""


def loading() -> dict[str, dict[str, float]]:
    """Return seconds and memory of loading in a process of its own: Kiwi as shipped, and ours."""
    found: dict[str, dict[str, float]] = {}
    for name in ("shipped", "ours", "english"):
        run = [sys.executable, "-W", "ignore", "-c", _LOAD, name]
        done = subprocess.run(run, capture_output=True, text=True, check=True)
        found[name] = json.loads(done.stdout)
        print(f"{name:20}", found[name])
    return found


def figures_of(data: Dataset, analyzer: KeywordAnalyzer) -> dict[str, float]:
    """Return quality and speed on one data set, beside words at white space."""
    started = time.perf_counter()
    rows = analyzer.tokens_many(data.rows)
    seconds = time.perf_counter() - started
    queries = {key: analyzer.query_tokens(text) for key, text in data.queries.items()}
    more = {key: expanded(analyzer, data.queries[key], words) for key, words in queries.items()}
    plain_rows = [row.lower().split() for row in data.rows]
    plain = {key: text.lower().split() for key, text in data.queries.items()}
    return {
        "ndcg_at_10": round(ndcg_at_10(data, rows, queries), 4),
        "ndcg_at_10_choose": round(ndcg_at_10(only(data, "choose"), rows, queries), 4),
        "ndcg_at_10_report": round(ndcg_at_10(only(data, "report"), rows, queries), 4),
        "with_law_names": round(ndcg_at_10(data, rows, more), 4),
        "whitespace_ndcg_at_10": round(ndcg_at_10(data, plain_rows, plain), 4),
        "rows": len(data.rows),
        "queries": len(data.judged),
        "rows_per_second": round(len(data.rows) / seconds, 1),
        "chars_per_second": round(sum(map(len, data.rows)) / seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--datasets", nargs="+", default=DATASETS)
    parser.add_argument("--chunks", action="store_true")
    options = parser.parse_args()
    loads = loading()
    analyzer = KeywordAnalyzer()
    figures: dict[str, dict[str, float]] = {}
    for name in options.datasets:
        data = load(options.data / name, chunks=options.chunks)
        figures[name] = figures_of(data, analyzer)
        print(f"{name:20}", figures[name])
    machine = describe()
    report = {
        "benchmark": "keywords",
        "chunks": options.chunks,
        "datasets": figures,
        "loading": loads,
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "baseline": "whitespace",
        "commit": commit(),
        "cpu": machine.cpu,
        "threads": machine.cores,
        "python": platform.python_version(),
        "seed": None,
    }
    print(json.dumps(report, ensure_ascii=False))


def commit() -> str:
    ran = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    return ran.stdout.strip() or "uncommitted"


if __name__ == "__main__":
    main()
