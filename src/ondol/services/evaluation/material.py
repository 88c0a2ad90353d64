"""What fidelity is measured on: texts, rated pairs, and judged passages; ours, or the user's own.

The package's own samples are Korean and English, short and long; a model gets those in languages
it knows. None of them is used to calibrate a form.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from ondol.core.types import ModelRole
from ondol.services.evaluation.datasets import load_beir, read_jsonl
from ondol.services.evaluation.texts import JudgedList, RatedPair, read_pairs, read_texts

LIST_LENGTH = 20
"""Passages ranked for one query of a BEIR folder: the relevant ones, and the most alike others."""

MOST_QUERIES = 200
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Queries over documents; ``gains[q]`` maps an index into ``documents`` to its gain."""

    queries: tuple[str, ...]
    documents: tuple[str, ...]
    gains: tuple[dict[int, float], ...]

    def every(self, step: int) -> Retrieval:
        """Return each ``step``-th query over its relevant documents and each ``step``-th other."""
        gains = self.gains[::step]
        wanted = {at for judged in gains for at in judged} | {*range(0, len(self.documents), step)}
        place = {at: number for number, at in enumerate(sorted(wanted))}
        return Retrieval(
            queries=self.queries[::step],
            documents=tuple(self.documents[at] for at in place),
            gains=tuple({place[at]: gain for at, gain in judged.items()} for judged in gains),
        )


@dataclass(frozen=True, slots=True)
class Material:
    """Texts and pairs are for embedders, lists for rerankers, retrieval for embedders."""

    texts: tuple[str, ...] = ()
    pairs: tuple[RatedPair, ...] = ()
    lists: tuple[JudgedList, ...] = ()
    retrieval: Retrieval | None = None

    def lightened(self) -> Material:
        """Return a part of everything: enough to find out which form is broken, or how fast."""
        return Material(
            texts=self.texts[::4],
            pairs=self.pairs,  # short, and rho is too noisy on fewer
            lists=self.lists[::5],
            retrieval=self.retrieval.every(3) if self.retrieval else None,
        )


def sample_texts(languages: Sequence[str]) -> list[str]:
    """Return the package's own texts in ``languages`` (all of them where it has none of those)."""
    return [str(row["text"]) for row in _known("texts", languages)]


def sample_lists(languages: Sequence[str]) -> list[JudgedList]:
    """Return the package's own queries with ten judged passages each."""
    return [
        JudgedList(str(row["query"]), tuple(row["documents"]), tuple(row["gains"]))
        for row in _known("lists", languages)
    ]


def material(
    role: ModelRole,
    languages: Sequence[str],
    *,
    texts: Path | None = None,
    sts: Path | None = None,
    dataset: Path | None = None,
) -> Material:
    """Return what to measure a model of ``role`` on: the files given, our samples for the rest.

    Raises ``NotFound`` or ``InvalidInput`` for files that are missing or malformed.
    """
    if role == "reranker":
        return Material(lists=tuple(_lists_of(dataset) if dataset else sample_lists(languages)))
    return Material(
        texts=tuple(read_texts(texts) if texts else sample_texts(languages)),
        pairs=tuple(read_pairs(sts) if sts else _sample_pairs(languages)),
        retrieval=_retrieval_of(dataset) if dataset else pooled(sample_lists(languages)),
    )


def pooled(lists: Sequence[JudgedList]) -> Retrieval:
    """Return ``lists`` as one retrieval set: every query over the passages of all of them."""
    documents = list(dict.fromkeys(passage for one in lists for passage in one.documents))
    place = {passage: at for at, passage in enumerate(documents)}
    gains = tuple(
        {place[p]: gain for p, gain in zip(one.documents, one.gains, strict=True) if gain > 0}
        for one in lists
    )
    return Retrieval(tuple(one.query for one in lists), tuple(documents), gains)


def _sample_pairs(languages: Sequence[str]) -> list[RatedPair]:
    return [
        RatedPair(str(row["sentence1"]), str(row["sentence2"]), float(row["score"]))
        for row in _known("pairs", languages)
    ]


def _known(name: str, languages: Sequence[str]) -> list[dict[str, Any]]:
    rows = _samples(name)
    found = [row for row in rows if row["language"] in languages]
    return found or rows


@cache
def _samples(name: str) -> list[dict[str, Any]]:
    file = resources.files("ondol.models").joinpath("samples", f"fidelity_{name}.jsonl")
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def _retrieval_of(folder: Path) -> Retrieval:
    data = load_beir(folder)
    rows = read_jsonl(data.corpus, required=("_id", "text"))
    place = {str(row["_id"]): at for at, row in enumerate(rows)}
    queries = data.queries[:MOST_QUERIES]
    return Retrieval(
        queries=tuple(query.text for query in queries),
        documents=tuple(_passage(row) for row in rows),
        gains=tuple(
            {place[d]: gain for d, gain in query.relevant.items() if d in place}
            for query in queries
        ),
    )


def _lists_of(folder: Path) -> list[JudgedList]:
    """Return lists to rerank: the relevant passages and those that share most words, shuffled."""
    found = _retrieval_of(folder)
    words = [set(_WORD.findall(text.lower())) for text in found.documents]
    shuffled = random.Random(7)
    lists = []
    for query, gains in zip(found.queries, found.gains, strict=True):
        asked = set(_WORD.findall(query.lower()))
        others = (at for at in range(len(words)) if at not in gains)
        nearest = sorted(others, key=lambda at: (-len(asked & words[at]), at))
        chosen = [*list(gains)[: LIST_LENGTH // 2], *nearest]
        chosen = chosen[:LIST_LENGTH]
        shuffled.shuffle(chosen)
        lists.append(
            JudgedList(
                query,
                tuple(found.documents[at] for at in chosen),
                tuple(gains.get(at, 0.0) for at in chosen),
            )
        )
    return lists


def _passage(row: dict[str, Any]) -> str:
    title = str(row.get("title") or "")
    return f"{title} {row['text']}".strip()
