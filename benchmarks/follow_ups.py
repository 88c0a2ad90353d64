"""Follow-up questions of a conversation: found as asked, rewritten, and as they were meant.

``questions/follow_ups.jsonl`` holds two-turn conversations over the shared statutes and the demo
documents: what leans on the first turn, and twelve changes of topic that do not. A passage counts
where its document is the right one and, if answers are given, where it holds one. Half of the
questions, by a hash of their ids, had a part in choosing the rules; both halves are reported. Run:
``python benchmarks/follow_ups.py --home DIR`` (``--generator`` rewrites with the generator too).
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, data_set, report, table

from ondol.answers.rewriting import ConversationTurn, QueryRewriter
from ondol.app.components import Parts
from ondol.app.container import Container
from ondol.core.settings import load_settings
from ondol.core.types import Hit
from ondol.lab.evaluate.datasets import Query, halves, read_jsonl
from ondol.lab.evaluate.statistics import ndcg
from ondol.lab.evaluate.wording import contains

QUESTIONS = ROOT / "benchmarks" / "questions" / "follow_ups.jsonl"
COLLECTIONS = {"statutes": "eval-ko_law_statutes", "demo": "demo"}
DEMO = ("work_rules_ko.pdf", "handbook_en.md", "reviews.jsonl")
DEPTH = 10


@dataclass(frozen=True)
class FollowUp:
    """A question with the turns before it and what it means on its own."""

    id: str
    collection: str
    question: str
    standalone: str
    history: tuple[ConversationTurn, ...]
    documents: tuple[str, ...]
    answers: tuple[str, ...]
    new_topic: bool

    def finds(self, hit: Hit) -> bool:
        right = hit.document in self.documents or hit.document.split("/")[-1] in self.documents
        return right and (not self.answers or contains(hit.text, self.answers))


@dataclass
class Way:
    """How one way of asking did, question by question."""

    hits: dict[str, float] = field(default_factory=dict)
    gains: dict[str, float] = field(default_factory=dict)
    rewriting_ms: list[float] = field(default_factory=list)

    def add(self, asked: FollowUp, found: Sequence[Hit]) -> None:
        places = [str(at) for at, hit in enumerate(found) if asked.finds(hit)]
        ranked = [str(at) for at in range(len(found))]
        first = int(places[0]) if places else DEPTH
        self.hits[asked.id] = float(first < 5)
        self.gains[asked.id] = ndcg(ranked, {places[0]: 1.0}, k=DEPTH) if places else 0.0


def read() -> list[FollowUp]:
    return [
        FollowUp(
            id=row["id"],
            collection=COLLECTIONS[row["set"]],
            question=row["question"],
            standalone=row["standalone"],
            history=tuple(
                ConversationTurn(turn["question"], turn["answer"], tuple(turn["titles"]))
                for turn in row["history"]
            ),
            documents=tuple(row["documents"]),
            answers=tuple(row.get("answers", ())),
            new_topic=bool(row.get("topic_changes")),
        )
        for row in read_jsonl(QUESTIONS, required=("id", "question", "standalone"))
    ]


async def ask(home: Path, follow_ups: Sequence[FollowUp], *, generator: bool) -> dict[str, Way]:
    settings = load_settings(flags={"home": home})
    parts = Parts(generator=generator, reranker=False)
    async with Container.open(settings, parts=parts) as container:
        await container.ingest.ingest_paths(
            COLLECTIONS["statutes"], [data_set("ko_law_statutes") / "corpus.jsonl"]
        )
        demo = [ROOT / "examples" / "demo" / name for name in DEMO]
        await container.ingest.ingest_paths(COLLECTIONS["demo"], demo)
        ways = {name: Way() for name in ("as asked", "rules alone", "rules beside", "as meant")}
        rewriters = {"rules": QueryRewriter(None, settings=settings.retrieval)}
        if generator:
            chosen = settings.retrieval.model_copy(
                update={"rewrite": "generator", "rewrite_seconds": 60.0}
            )
            rewriters["generator"] = QueryRewriter(container.chat, settings=chosen)
            ways |= {"generator alone": Way(), "generator beside": Way()}

        async def search(way: str, one: FollowUp, query: str, *also: str) -> None:
            found = await container.retrieval.search(
                one.collection, query, also=also, top_k=DEPTH, rerank=False
            )
            ways[way].add(one, found.hits)

        for one in follow_ups:
            await search("as asked", one, one.question)
            await search("as meant", one, one.standalone)
            for name, rewriter in rewriters.items():
                before = time.perf_counter()
                meant = await rewriter.meant(one.question, one.history)
                spent = (time.perf_counter() - before) * 1e3
                ways[f"{name} beside"].rewriting_ms.append(spent)
                await search(f"{name} alone", one, meant.standalone)
                await search(f"{name} beside", one, one.question, *meant.also)
    return ways


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--generator", action="store_true")
    options = parser.parse_args()
    follow_ups = read()
    ways = asyncio.run(ask(options.home, follow_ups, generator=options.generator))
    choosing, reporting = halves([Query(one.id, one.question, {}) for one in follow_ups])
    groups = {
        "follow-ups": [one.id for one in follow_ups if not one.new_topic],
        "new topics": [one.id for one in follow_ups if one.new_topic],
    }
    for half, drawn in (("choosing", choosing), ("reporting", reporting)):
        ids = {query.id for query in drawn}
        groups[f"follow-ups, {half}"] = [i for i in groups["follow-ups"] if i in ids]
    figures: dict[str, Any] = {}
    for group, ids in groups.items():
        print(f"\n{group} ({len(ids)})")
        figures[group] = {name: _figures(way, ids) for name, way in ways.items()}
        table(
            ("way", "hit@5", "nDCG@10", "rewriting p50 ms"),
            [(name, *found.values()) for name, found in figures[group].items()],
        )
    report(figures)


def _figures(way: Way, ids: Sequence[str]) -> Mapping[str, float]:
    spent = float(np.median(way.rewriting_ms)) if way.rewriting_ms else 0.0
    return {
        "hit_at_5": round(float(np.mean([way.hits[i] for i in ids])), 3),
        "ndcg_at_10": round(float(np.mean([way.gains[i] for i in ids])), 4),
        "rewriting_p50_ms": round(spent, 2),
    }


if __name__ == "__main__":
    main()
