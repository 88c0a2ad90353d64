"""Look-ups by case number and by article: is the record so named at rank 1, and what does it cost.

Made from the titles of the shared statutes and precedents, in the spellings people use. The named
baseline is the order of the same query's keyword scores. With ``--fake`` no model is needed: what
is measured is the matching. Run: ``python benchmarks/lookups.py [--fake] [--limit N]``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import time
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import data_set, report, table, working_home

from ondol.app.components import Parts
from ondol.app.container import Container
from ondol.core.settings import load_settings
from ondol.core.types import SearchMode
from ondol.lab.evaluate.statistics import percentile
from ondol.packs.legal.law_names import law_names, squeezed

SEED = 20240607
MODES: tuple[SearchMode, ...] = ("hybrid", "lexical")


@dataclass(frozen=True)
class Lookup:
    """A query and the documents any of which is what it names."""

    kind: str
    query: str
    wanted: frozenset[str]


def rows(name: str) -> list[dict[str, Any]]:
    lines = (data_set(name) / "corpus.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def wide(text: str) -> str:
    """Return ``text`` with full-width digits."""
    return "".join(chr(ord(c) + 0xFEE0) if c in "0123456789" else c for c in text)


def articles(limit: int) -> Iterator[Lookup]:
    """Every spelling of a sample of articles."""
    shorts: dict[str, str] = {}
    for short, full in law_names().items():
        shorts.setdefault(full, short)
    found = rows("ko_law_statutes")
    for row in random.Random(SEED).sample(found, min(limit or len(found), len(found))):
        law, article = row["metadata"]["law"], row["metadata"]["article"]
        bare = article.removeprefix("제")
        wanted = frozenset([row["_id"]])
        spellings = {
            "full": f"{law} {article}",
            "no 제": f"{law} {bare}",
            "no blanks": squeezed(law) + article,
            "blanks": f"{law} 제 {bare.replace('조', ' 조')}",
            "clause": f"{law} {article} 제1항",
            "article first": f"{article} {law}",
            "wide digits": wide(f"{law} {article}"),
            "decomposed": unicodedata.normalize("NFD", f"{law} {bare}"),
            "question": f"{law} {article}의 내용이 무엇인가요?",
        }
        if short := shorts.get(squeezed(law), ""):
            spellings["short name"] = f"{short} {bare}"
            if "의" not in bare:
                spellings["short, bare number"] = short + bare.removesuffix("조")
        for kind, query in spellings.items():
            yield Lookup(f"article, {kind}", query, wanted)


def cases(limit: int) -> Iterator[Lookup]:
    """Every spelling of a sample of case numbers, joined cases by each of their numbers."""
    by_case: dict[str, set[str]] = {}
    for row in rows("ko_law_precedents"):
        stem = ""
        for part in re.split(r",\s?", re.sub(r"\([^)]*\)", "", row["metadata"]["case"])):
            own, number = re.findall(r"^(.*?)(\d+)$", part)[0]
            stem = own or stem
            by_case.setdefault(stem + number, set()).add(row["_id"])
    numbers = sorted(by_case)
    for number in random.Random(SEED).sample(numbers, min(limit or len(numbers), len(numbers))):
        spaced = re.sub(r"(\D+)", r" \1 ", number)
        for kind, query in {
            "bare": number,
            "blanks": spaced,
            "blank after": re.sub(r"(\D+)", r"\1 ", number),
            "blank before": re.sub(r"(\D+)", r" \1", number),
            "wide digits": wide(number),
            "decomposed": unicodedata.normalize("NFD", number),
            "with court": f"대법원 {number} 판결",
            "question": f"{number} 판결의 요지를 알려줘",
        }.items():
            yield Lookup(f"case, {kind}", query, frozenset(by_case[number]))


async def measure(
    container: Container, collection: str, asked: Sequence[Lookup], modes: Sequence[SearchMode]
) -> dict[str, Any]:
    """Return, by kind and mode, the share at rank 1, the baseline's, and milliseconds."""
    figures: dict[str, Any] = {}
    for mode in modes:
        right: dict[str, list[tuple[bool, bool, float]]] = {}
        for one in asked:
            started = time.perf_counter()
            found = await container.retrieval.search(
                collection, one.query, mode=mode, rerank=False, top_k=10
            )
            took = (time.perf_counter() - started) * 1e3
            first = found.hits[0].document if found.hits else ""
            keyword = max(found.hits, key=lambda hit: hit.lexical_score or 0.0, default=None)
            baseline = keyword is not None and keyword.document in one.wanted
            if first not in one.wanted:
                print(f"missed ({mode}): {one.query!r} -> {first!r}, not {sorted(one.wanted)[:2]}")
            right.setdefault(one.kind, []).append((first in one.wanted, baseline, took))
        for kind, results in right.items():
            figures.setdefault(kind, {})[mode] = {
                "lookups": len(results),
                "hit_at_1": round(sum(r[0] for r in results) / len(results), 4),
                "baseline_hit_at_1": round(sum(r[1] for r in results) / len(results), 4),
                "p50_ms": round(percentile([r[2] for r in results], 0.5), 2),
                "p95_ms": round(percentile([r[2] for r in results], 0.95), 2),
            }
    return figures


async def run(home: Path, *, fake: bool, limit: int, modes: Sequence[SearchMode]) -> dict[str, Any]:
    settings = load_settings(flags={"home": home}, environ={}, config=None)
    parts = Parts(reranker=False, generator=False, fake=fake)
    figures: dict[str, Any] = {}
    async with Container.open(settings, parts=parts) as container:
        for name, asked in (
            ("ko_law_statutes", list(articles(limit))),
            ("ko_law_precedents", list(cases(limit))),
        ):
            await container.ingest.ingest_paths(name, [data_set(name) / "corpus.jsonl"])
            figures |= await measure(container, name, asked, modes)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fake", action="store_true", help="no models: measure the matching")
    parser.add_argument(
        "--limit", type=int, default=200, help="articles and cases to look up; 0: all"
    )
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--home", type=Path, help="keep the collections here for the next run")
    options = parser.parse_args()
    os.environ.pop("ONDOL_SHARED_DATA", None)
    home = options.home or working_home("lookups")
    figures = asyncio.run(run(home, fake=options.fake, limit=options.limit, modes=options.modes))
    table(
        ("look-up", "mode", "n", "hit@1", "keywords alone", "p50 ms", "p95 ms"),
        [(kind, mode, *m.values()) for kind, modes in figures.items() for mode, m in modes.items()],
    )
    worst = min(m["hit_at_1"] for modes in figures.values() for m in modes.values())
    report({"lookups": figures, "worst_hit_at_1": worst}, settings={"fake": options.fake})


if __name__ == "__main__":
    main()
