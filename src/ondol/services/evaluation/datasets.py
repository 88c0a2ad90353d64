"""Labelled questions from disk: BEIR folders and question files.

BEIR: ``corpus.jsonl`` (``_id``, ``title``, ``text``), ``queries.jsonl`` (``_id``, ``text``,
``metadata.answers``), ``qrels.tsv`` (``query-id corpus-id score``, header first). Question files:
JSONL with ``question``, ``answers``, ``document`` and optionally ``provisions``, the articles that
a right answer may cite.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondol.core.errors import InvalidInput, NotFound


@dataclass(frozen=True, slots=True)
class Query:
    """A query and its judged documents (document id → gain)."""

    id: str
    text: str
    relevant: Mapping[str, float]
    answers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RetrievalDataset:
    """A corpus file and the judged queries over it."""

    name: str
    corpus: Path
    queries: tuple[Query, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """A question, the spans any of which answers it (none: unanswerable), and where they stand."""

    id: str
    text: str
    answers: tuple[str, ...]
    documents: tuple[str, ...]
    provisions: tuple[str, ...] = ()

    @property
    def answerable(self) -> bool:
        return bool(self.answers)


def load_beir(folder: Path) -> RetrievalDataset:
    """Read a BEIR folder; queries without a judged document are left out.

    Raises ``NotFound`` for a missing file and ``InvalidInput`` naming file and line for a bad one.
    """
    for name in ("corpus.jsonl", "queries.jsonl", "qrels.tsv"):
        if not (folder / name).is_file():
            raise NotFound(
                f"{folder} has no {name}",
                hint="a dataset folder holds corpus.jsonl, queries.jsonl and qrels.tsv",
                param="dataset",
            )
    judged: dict[str, dict[str, float]] = {}
    for number, line in enumerate((folder / "qrels.tsv").read_text("utf-8").splitlines()[1:], 2):
        cells = line.split("\t")
        if len(cells) != 3:
            raise InvalidInput(
                f"{folder / 'qrels.tsv'} line {number} has {len(cells)} cells, 3 are needed",
                hint="query-id, corpus-id and score, tab separated",
            )
        judged.setdefault(cells[0], {})[cells[1]] = float(cells[2])
    queries = tuple(
        Query(
            id=str(row["_id"]),
            text=str(row["text"]),
            relevant=judged[str(row["_id"])],
            answers=_answers(row.get("metadata", {}).get("answers", ())),
        )
        for row in read_jsonl(folder / "queries.jsonl", required=("_id", "text"))
        if str(row["_id"]) in judged
    )
    if not queries:
        raise InvalidInput(f"{folder} has no judged query", hint="check the ids in qrels.tsv")
    return RetrievalDataset(folder.resolve().name, folder / "corpus.jsonl", queries)


def load_questions(path: Path) -> list[Question]:
    """Read a question file, or the answered queries of a BEIR folder."""
    if path.is_dir():
        return [
            Question(q.id, q.text, q.answers, tuple(q.relevant))
            for q in load_beir(path).queries
            if q.answers
        ]
    questions = []
    for number, row in enumerate(read_jsonl(path, required=("question",)), start=1):
        documents = row.get("documents") or ([row["document"]] if row.get("document") else [])
        questions.append(
            Question(
                id=str(row.get("id", number)),
                text=str(row["question"]),
                answers=_answers(row.get("answers", ())),
                documents=tuple(str(d) for d in documents),
                provisions=_answers(row.get("provisions", ())),
            )
        )
    return questions


def load_judged(path: Path) -> list[Query]:
    """Return the queries of a BEIR folder, or those of a question file that name a document."""
    if path.is_dir():
        return list(load_beir(path).queries)
    return [
        Query(q.id, q.text, dict.fromkeys(q.documents, 1.0), q.answers)
        for q in load_questions(path)
        if q.documents
    ]


def read_jsonl(path: Path, *, required: tuple[str, ...]) -> list[dict[str, Any]]:
    """Read JSON lines; raises ``InvalidInput`` naming the line for what is malformed."""
    if not path.is_file():
        raise NotFound(f"{path} does not exist", hint="check the path", param=str(path))
    rows = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InvalidInput(
                f"{path} line {number} is not JSON: {error}", hint="mend it"
            ) from None
        missing = [key for key in required if not isinstance(row, dict) or key not in row]
        if missing:
            raise InvalidInput(
                f"{path} line {number} has no {missing[0]!r}", hint=f"needed: {', '.join(required)}"
            )
        rows.append(row)
    return rows


def _answers(raw: Any) -> tuple[str, ...]:
    return tuple(str(a["text"]) if isinstance(a, dict) else str(a) for a in raw)
