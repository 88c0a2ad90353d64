"""Labelled questions from disk: BEIR folders and question files.

BEIR: ``corpus.jsonl`` (``_id``, ``title``, ``text``), ``queries.jsonl`` (``_id``, ``text``,
``metadata.answers``), ``qrels.tsv`` (``query-id corpus-id score``, header first). Question files:
JSONL with ``question``, ``answers``, ``document`` and optionally ``provisions``, the articles that
a right answer may cite.

Texts, rated pairs and rerank requests from files, in the shapes people have them in.

Texts: one a line, JSONL with ``text``, or one JSON list. Pairs: TSV with the columns ``score``,
``sentence1`` and ``sentence2`` (as STS-B and KorSTS have them). Requests: JSONL with ``query`` and
``documents``. Every error names the file and the line.

What fidelity is measured on: texts, rated pairs, and judged passages; ours, or the user's own.

The package's own samples are Korean and English, short and long; a model gets those in languages
it knows. None of them is used to calibrate a form.

The two halves of a set of questions: one that chooses, one that decides.

Pure. A question's half hangs on its id alone, so the halves are the same in every run and for every
choice, whatever order the questions come in.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from importlib import resources
from pathlib import Path
from typing import Any

from ondol.core.errors import InvalidInput, NotFound
from ondol.core.types import ModelRole


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


_PAIR_COLUMNS = ("score", "sentence1", "sentence2")


@dataclass(frozen=True, slots=True)
class RatedPair:
    """Two sentences and how alike people say they are (any scale, higher is more alike)."""

    left: str
    right: str
    score: float


@dataclass(frozen=True, slots=True)
class JudgedList:
    """A query and passages to rank for it; ``gains`` is empty where nobody judged them."""

    query: str
    documents: tuple[str, ...]
    gains: tuple[float, ...] = ()


def read_texts(path: Path) -> list[str]:
    """Return the texts of ``path``, blank ones left out.

    Raises ``NotFound``, or ``InvalidInput`` for a malformed file or one without a text.
    """
    if not path.is_file():
        raise NotFound(f"{path} does not exist", hint="check the path", param="texts")
    content = path.read_text("utf-8-sig")
    if path.suffix == ".jsonl" or _is_object(content):
        texts = [str(row["text"]) for row in read_jsonl(path, required=("text",))]
    elif content.lstrip().startswith("["):
        texts = _listed(path, content)
    else:
        texts = content.splitlines()
    found = [text for text in texts if text.strip()]
    if not found:
        raise InvalidInput(
            f"{path} holds no text",
            hint="one text a line, JSONL with 'text', or one JSON list",
            param="texts",
        )
    return found


def read_pairs(path: Path) -> list[RatedPair]:
    """Return the rated pairs of a TSV; raises ``NotFound`` or ``InvalidInput`` with the line."""
    if not path.is_file():
        raise NotFound(f"{path} does not exist", hint="check the path", param="sts")
    lines = path.read_text("utf-8-sig").splitlines()
    header = lines[0].split("\t") if lines else []
    missing = [column for column in _PAIR_COLUMNS if column not in header]
    if missing:
        raise InvalidInput(
            f"{path} has no column {missing[0]!r}",
            hint=f"the first line names the columns {', '.join(_PAIR_COLUMNS)}, tab separated",
            param="sts",
        )
    at = [header.index(column) for column in _PAIR_COLUMNS]
    pairs = []
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split("\t")
        try:
            score, left, right = (cells[column] for column in at)
            pairs.append(RatedPair(left, right, float(score)))
        except (IndexError, ValueError):
            raise InvalidInput(
                f"{path} line {number} is no rated pair: {line[:80]!r}",
                hint="every line needs a number and two sentences, tab separated",
                param="sts",
            ) from None
    return pairs


def read_requests(path: Path, *, query: str | None = None) -> list[JudgedList]:
    """Return the rerank requests of ``path``; with ``query`` its lines are that query's passages."""
    if query is not None:
        return [JudgedList(query, tuple(read_texts(path)))]
    rows = read_jsonl(path, required=("query", "documents"))
    found = [
        JudgedList(
            str(row["query"]),
            tuple(str(document) for document in row["documents"]),
            tuple(float(gain) for gain in row.get("gains", ())),
        )
        for row in rows
        if row["documents"]
    ]
    if not found:
        raise InvalidInput(
            f"{path} holds no request with documents",
            hint="JSONL with 'query' and 'documents', or lines of text and --query",
            param="texts",
        )
    return found


def _is_object(content: str) -> bool:
    first = content.lstrip().split("\n", 1)[0].strip()
    return first.startswith('{"') and first.endswith("}")


def _listed(path: Path, content: str) -> list[str]:
    try:
        items: Any = json.loads(content)
    except ValueError:
        return content.splitlines()  # lines of text, the first of which begins with a bracket
    if not isinstance(items, list):
        raise InvalidInput(f"{path} is no JSON list", hint="give a list of texts", param="texts")
    return [str(item["text"]) if isinstance(item, dict) else str(item) for item in items]


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
class FidelityMaterial:
    """Texts and pairs are for embedders, lists for rerankers, retrieval for embedders."""

    texts: tuple[str, ...] = ()
    pairs: tuple[RatedPair, ...] = ()
    lists: tuple[JudgedList, ...] = ()
    retrieval: Retrieval | None = None

    def lightened(self) -> FidelityMaterial:
        """Return a part of everything: enough to find out which form is broken, or how fast."""
        return FidelityMaterial(
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
) -> FidelityMaterial:
    """Return what to measure a model of ``role`` on: the files given, our samples for the rest.

    Raises ``NotFound`` or ``InvalidInput`` for files that are missing or malformed.
    """
    if role == "reranker":
        return FidelityMaterial(
            lists=tuple(_lists_of(dataset) if dataset else sample_lists(languages))
        )
    return FidelityMaterial(
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


FEWEST = 8
"""Questions below which a half says nothing."""


def halves(queries: Sequence[Query]) -> tuple[list[Query], list[Query]]:
    """Return the half that chooses and the half that decides, drawn by a hash of the ids.

    Raises ``InvalidInput`` for fewer than 16 questions.
    """
    if len(queries) < 2 * FEWEST:
        raise InvalidInput(
            f"{len(queries)} questions with a known document; at least {2 * FEWEST} are needed",
            hint="add questions, each with the document that answers it",
            param="dataset",
        )
    drawn = sorted(
        queries, key=lambda one: (blake2b(one.id.encode(), digest_size=8).digest(), one.id)
    )
    return drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]
