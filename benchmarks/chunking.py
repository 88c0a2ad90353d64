"""How documents are cut, against how they were cut before: nDCG@10 and Recall@10 on shared data.

Each set is searched as the records it comes as, and laws and judgments also as whole documents: the
articles of a law joined into one text, the holdings of a decision into one. There a passage stands
for the record it covers most of. The baseline is ``heading`` (joints of headings, articles, blank
lines and sentences; every record by the same rule), in the same run. Queries are split by a hash of
their id: what is chosen is chosen on ``dev``, what is claimed is read off ``test``. With ``--fake``
no model is needed and only keywords are measured.

    python benchmarks/chunking.py [--fake] [--variants heading auto …] [SET …]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common import data_set, report, table, working_home

from ondol.app.components import Parts
from ondol.app.container import Container
from ondol.core.chunk_options import ChunkStrategy
from ondol.core.settings import load_settings
from ondol.core.types import Hit, SearchMode
from ondol.lab.evaluate.answer_evaluation import QueryScore, differences, mean, score
from ondol.lab.evaluate.datasets import Query, load_beir

BASELINE = "heading"
VARIANTS: dict[str, tuple[ChunkStrategy, int, int]] = {
    "heading": ("heading", 400, 60),
    "auto": ("auto", 400, 60),
    "record": ("record", 400, 60),
    "recursive": ("recursive", 400, 60),
    "heading-300": ("heading", 300, 45),
    "auto-300": ("auto", 300, 45),
    "recursive-300": ("recursive", 300, 45),
}
SETS = (
    "ko_law_statutes",
    "ko_law_precedents",
    "ko_korquad",
    "ko_fire_petitions",
    "en_scifact_subset",
    "laws",
    "judgments",
)
FIGURES = ("ndcg_at_10", "recall_at_10")
HITS = 60


@dataclass
class Corpus:
    """Files to ingest, queries, and where the judged records stand in documents that hold several."""

    files: list[Path]
    queries: Sequence[Query]
    places: dict[str, list[tuple[int, int, str]]] = field(default_factory=dict)

    def judged(self, hit: Hit) -> str:
        """Return the record that ``hit`` covers most of; of a whole record its own name."""
        pieces = self.places.get(hit.document)
        if pieces is None:
            return hit.document
        return max(pieces, key=lambda piece: min(hit.end, piece[1]) - max(hit.start, piece[0]))[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", default=SETS)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--fake", action="store_true", help="Keywords only, no model needed.")
    options = parser.parse_args()
    wanted = list(dict.fromkeys([BASELINE, *options.variants]))
    home = working_home("chunking")
    modes: tuple[SearchMode, ...] = ("lexical",) if options.fake else ("lexical", "dense", "hybrid")
    figures: dict[str, Any] = {}
    rows: list[tuple[Any, ...]] = []
    for name in options.sets:
        corpus = corpus_of(name, home / "corpora")
        found = {one: asyncio.run(measure(home, name, corpus, one, modes)) for one in wanted}
        figures[name] = compared(found)
        rows += listed(name, figures[name])
    table(("set", "variant", "passages", "mode", "half", *FIGURES, "change (95 %)"), rows)
    report({"figures": figures, "baseline": BASELINE}, settings={"hits": HITS})


async def measure(
    home: Path, name: str, corpus: Corpus, variant: str, modes: Sequence[SearchMode]
) -> dict[str, Any]:
    """Ingest ``corpus`` cut by ``variant`` and score every query in every mode."""
    strategy, target, overlap = VARIANTS[variant]
    kept = load_settings()
    settings = kept.model_copy(
        update={
            "home": home,
            "ingest": kept.ingest.model_copy(
                update={"chunking": strategy, "chunk_chars": target, "chunk_overlap": overlap}
            ),
            "cache": kept.cache.model_copy(
                update={"embeddings": "redis" if kept.cache.embeddings == "redis" else "sqlite"}
            ),
        }
    )
    parts = Parts(reranker=False, generator=False, fake=modes == ("lexical",))
    collection = f"{name}-{variant}"
    scores: dict[str, list[QueryScore]] = {}
    async with Container.open(settings, parts=parts) as container:
        done = await container.ingest.ingest_paths(collection, corpus.files)
        for mode in modes:
            scores[mode] = []
            for query in corpus.queries:
                found = await container.retrieval.search(
                    collection, query.text, top_k=HITS, mode=mode, rerank=False
                )
                ranked = list(dict.fromkeys(corpus.judged(hit) for hit in found.hits))
                scores[mode].append(score(query, ranked))
    return {"passages": done.chunks, "scores": scores}


def compared(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of every variant by mode and half, with the change against the baseline."""
    figures: dict[str, Any] = {}
    for variant, one in found.items():
        mine: dict[str, Any] = {"passages": one["passages"]}
        for mode, scores in one["scores"].items():
            base = found[BASELINE]["scores"][mode]
            mine[mode] = {half: _half(half, base, scores) for half in ("dev", "test")}
        figures[variant] = mine
    return figures


def _half(half: str, base: Sequence[QueryScore], other: Sequence[QueryScore]) -> dict[str, Any]:
    before = [one for one in base if half_of(one.id) == half]
    after = [one for one in other if half_of(one.id) == half]
    change = differences(before, after)["ndcg_at_10"]
    return {
        "queries": len(after),
        **{figure: round(mean(after, figure), 4) for figure in FIGURES},
        "ndcg_change": [round(x, 4) for x in (change.mean, change.low, change.high)],
    }


def half_of(query: str) -> str:
    """Return the half that the query with this id belongs to, for ever."""
    return "dev" if hashlib.sha256(query.encode()).digest()[0] % 2 == 0 else "test"


def listed(name: str, figures: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    for variant, one in figures.items():
        for mode, halves in one.items():
            if mode == "passages":
                continue
            for half, scores in halves.items():
                mean_change, low, high = scores["ndcg_change"]
                change = f"{mean_change:+.4f} ({low:+.4f} to {high:+.4f})"
                values = (scores[figure] for figure in FIGURES)
                yield (name, variant, one["passages"], mode, half, *values, change)


def corpus_of(name: str, folder: Path) -> Corpus:
    if name == "laws":
        return joined("ko_law_statutes", folder / name, key=_law, write=_article)
    if name == "judgments":
        return joined("ko_law_precedents", folder / name, key=_decision, write=_holding)
    dataset = load_beir(data_set(name))
    return Corpus([dataset.corpus], dataset.queries)


def joined(name: str, folder: Path, *, key: Any, write: Any) -> Corpus:
    """Write the records of ``name`` that belong together as one text file each."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset = load_beir(data_set(name))
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in dataset.corpus.read_text("utf-8").splitlines():
        row = json.loads(line)
        groups.setdefault(key(row), []).append(row)
    corpus = Corpus([folder], dataset.queries)
    for title, group in groups.items():
        text, places = "", []
        for number, row in enumerate(group):
            text += write(row, group[number - 1] if number else None, number)
            places.append((len(text) - len(row["text"]), len(text), str(row["_id"])))
            text += "\n"
        file = folder / f"{title}.txt"
        file.write_text(text, "utf-8")
        corpus.places[file.name] = places
    return corpus


def _law(row: Mapping[str, Any]) -> str:
    return str(row["metadata"]["law"])


def _article(row: Mapping[str, Any], before: Mapping[str, Any] | None, number: int) -> str:
    """The law's name first, then chapters where they begin, then the article as laws print it."""
    law = _law(row)
    above = _chapters(before) if before is not None else []
    new = [part for part in _chapters(row) if part not in above]
    head = f"{law}\n" if number == 0 else ""
    return head + "".join(f"\n{part}\n" for part in new) + _titled(row, law) + row["text"]


def _titled(row: Mapping[str, Any], law: str) -> str:
    return f"{str(row['title']).removeprefix(law).strip()} "


def _chapters(row: Mapping[str, Any]) -> list[str]:
    return [part for part in str(row["metadata"].get("chapter", "")).split(" > ") if part]


def _decision(row: Mapping[str, Any]) -> str:
    return str(row["metadata"]["case"]).replace("/", "_")[:60]


def _holding(row: Mapping[str, Any], before: Mapping[str, Any] | None, number: int) -> str:
    head = f"{row['title']}\n\n【판결요지】\n" if before is None else ""
    return f"{head}[{number + 1}] {row['text']}"


if __name__ == "__main__":
    main()
