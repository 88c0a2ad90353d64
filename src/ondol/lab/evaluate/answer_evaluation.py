"""How right, how well cited and how quick answers are, on questions with known answers.

Every citation is checked again here against the stored text, independently of the service that
made it.

The scores of queries one by one, and their means: over all, and by kind of query.

Pure. A ranking is of documents, best first; figures at k count the first k of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ondol.answers.ask import Answer, AskService
from ondol.core.errors import NotFound
from ondol.lab.evaluate.datasets import Query, Question
from ondol.lab.evaluate.legal_scores import Provisions, judge
from ondol.lab.evaluate.query_types import QUERY_TYPES, QueryType, query_type
from ondol.lab.evaluate.statistics import (
    Difference,
    Interval,
    difference,
    interval,
    ndcg,
    percentile,
    recall,
    reciprocal_rank,
)
from ondol.lab.evaluate.wording import contains, exact_match, token_f1
from ondol.store.documents import DocumentStore


@dataclass(frozen=True, slots=True)
class AnsweredQuestion:
    """One question with what came of it."""

    question: Question
    answer: Answer
    contains: bool
    exact: bool
    f1: float
    citations_right: int
    citations_verbatim: int
    documents_cited: int
    provisions: Provisions

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.question.id,
            "question": self.question.text,
            "golds": list(self.question.answers),
            "answer": self.answer.answer,
            "abstained": self.answer.abstained,
            "contains": self.contains,
            "citations": len(self.answer.citations),
            "citations_right": self.citations_right,
            "citations_verbatim": self.citations_verbatim,
            "documents_cited": self.documents_cited,
            "provisions": list(self.provisions.cited),
            "provisions_right": self.provisions.right,
            "relevance": round(self.answer.relevance, 4),
            "ttft_ms": round(self.answer.timings.ttft_ms, 1),
            "total_ms": round(self.answer.timings.total_ms, 1),
            "prompt_tokens": self.answer.usage.prompt_tokens,
        }


class AnswerEvaluator:
    """Asks every question, one after the other."""

    def __init__(self, ask: AskService, store: DocumentStore) -> None:
        self._ask = ask
        self._store = store

    async def evaluate(
        self,
        collection: str,
        questions: Sequence[Question],
        *,
        told: Callable[[int, int], None] | None = None,
    ) -> list[AnsweredQuestion]:
        """Return one result per question, in order."""
        results = []
        for done, question in enumerate(questions, start=1):
            answer = await self._ask.ask(collection, question.text)
            results.append(await asyncio.to_thread(self._judge, collection, question, answer))
            if told is not None:
                told(done, len(questions))
        return results

    def _judge(self, collection: str, question: Question, answer: Answer) -> AnsweredQuestion:
        verbatim = right = 0
        titles: dict[str, str] = {}
        for citation in answer.citations:
            stored = self._store.document(collection, citation.document)
            titles[citation.document] = stored.title
            if stored.text[citation.start : citation.end] == citation.quote:
                verbatim += 1
            if citation.document in question.documents or contains(
                citation.quote, question.answers
            ):
                right += 1
        return AnsweredQuestion(
            question=question,
            answer=answer,
            contains=not answer.abstained and contains(answer.answer, question.answers),
            exact=exact_match(answer.answer, question.answers),
            f1=token_f1(answer.answer, question.answers),
            citations_right=right,
            citations_verbatim=verbatim,
            documents_cited=len(set(question.documents) & titles.keys()),
            provisions=judge(
                "" if answer.abstained else answer.answer,
                cited=titles,
                gold=self._titles(collection, question.documents),
                gold_texts=(*question.answers, *question.provisions),
            ),
        )

    def _titles(self, collection: str, documents: Sequence[str]) -> dict[str, str]:
        """Return document → title; a judged document the collection does not hold has none."""
        titles = {}
        for document in documents:
            try:
                titles[document] = self._store.document(collection, document).title
            except NotFound:
                titles[document] = ""
        return titles


def summarise(results: Sequence[AnsweredQuestion]) -> dict[str, Any]:
    """Return the figures over ``results``: shares in 0…1, times in milliseconds."""
    asked = [r for r in results if r.question.answerable]
    traps = [r for r in results if not r.question.answerable]
    cited = sum(len(r.answer.citations) for r in asked)
    every = [r for r in results if r.answer.citations]
    quotes = sum(len(r.answer.citations) for r in every)
    provisions = sum(len(r.provisions.cited) for r in asked)
    ttft = [r.answer.timings.ttft_ms for r in asked]
    total = [r.answer.timings.total_ms for r in asked]
    return {
        "questions": len(results),
        "answerable": len(asked),
        "contains": _share(sum(r.contains for r in asked), len(asked)),
        "exact_match": _share(sum(r.exact for r in asked), len(asked)),
        "token_f1": _share(sum(r.f1 for r in asked), len(asked)),
        "cited": _share(sum(bool(r.answer.citations) for r in asked), len(asked)),
        "citation_precision": _share(sum(r.citations_right for r in asked), cited),
        "citation_recall": _share(sum(r.citations_right > 0 for r in asked), len(asked)),
        "gold_documents_cited": _share(
            sum(r.documents_cited for r in asked), sum(len(r.question.documents) for r in asked)
        ),
        "provisions_cited": provisions,
        "statute_relevance": _share(sum(r.provisions.right for r in asked), provisions),
        "verified_quotes": _share(sum(r.citations_verbatim for r in every), quotes),
        "dropped_citations": sum(r.answer.dropped_citations for r in results),
        "unsupported_statements": sum(r.answer.unsupported_statements for r in results),
        "abstained_wrongly": _share(sum(r.answer.abstained for r in asked), len(asked)),
        "abstained_rightly": _share(sum(r.answer.abstained for r in traps), len(traps)),
        "ttft_p50_ms": percentile(ttft, 0.5),
        "ttft_p95_ms": percentile(ttft, 0.95),
        "total_p50_ms": percentile(total, 0.5),
        "total_p95_ms": percentile(total, 0.95),
        "retrieve_p50_ms": percentile([r.answer.timings.retrieve_ms for r in asked], 0.5),
        "prompt_tokens_p50": percentile([float(r.answer.usage.prompt_tokens) for r in asked], 0.5),
        "intervals": {
            "contains": _bounds([float(r.contains) for r in asked]),
            "exact_match": _bounds([float(r.exact) for r in asked]),
            "token_f1": _bounds([r.f1 for r in asked]),
        },
    }


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def _bounds(values: Sequence[float]) -> list[float] | None:
    found = interval(values)
    return [found.low, found.high] if values else None


FIGURES = ("ndcg_at_10", "recall_at_1", "recall_at_5", "recall_at_10", "mrr_at_10")


@dataclass(frozen=True, slots=True)
class QueryScore:
    """What one query scored; ``ranked`` holds its first ten documents."""

    id: str
    text: str
    type: QueryType
    ndcg_at_10: float
    recall_at_1: float
    recall_at_5: float
    recall_at_10: float
    mrr_at_10: float
    ranked: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def score(query: Query, ranked: Sequence[str]) -> QueryScore:
    """Return the scores of ``query`` under ``ranked``."""
    return QueryScore(
        id=query.id,
        text=query.text,
        type=query_type(query.text),
        ndcg_at_10=ndcg(ranked, query.relevant),
        recall_at_1=recall(ranked, query.relevant, k=1),
        recall_at_5=recall(ranked, query.relevant, k=5),
        recall_at_10=recall(ranked, query.relevant),
        mrr_at_10=reciprocal_rank(ranked, query.relevant),
        ranked=tuple(ranked[:10]),
    )


def values(scores: Sequence[QueryScore], figure: str) -> list[float]:
    """Return one figure of every query, in order."""
    return [float(getattr(one, figure)) for one in scores]


def mean(scores: Sequence[QueryScore], figure: str) -> float:
    """Return the mean of one figure; 0 for no queries."""
    return sum(values(scores, figure)) / len(scores) if scores else 0.0


def intervals(scores: Sequence[QueryScore]) -> dict[str, Interval]:
    """Return every figure with its 95 % interval."""
    return {figure: interval(values(scores, figure)) for figure in FIGURES}


def by_type(scores: Sequence[QueryScore]) -> dict[QueryType, list[QueryScore]]:
    """Return the scores by kind of query; kinds that do not occur are left out."""
    groups = {kind: [one for one in scores if one.type == kind] for kind in QUERY_TYPES}
    return {kind: group for kind, group in groups.items() if group}


def differences(base: Sequence[QueryScore], other: Sequence[QueryScore]) -> dict[str, Difference]:
    """Return, for every figure, how ``other`` differs from ``base`` on the same queries."""
    return {f: difference(values(base, f), values(other, f)) for f in FIGURES}
