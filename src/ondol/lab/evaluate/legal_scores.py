"""The figures of legal work: provisions real and right, fields of law, outcomes, punishments, fields.

Blocking: what is cited is looked up again in the store.

Which provisions and cases a result cites, which of them exist, and which are the right ones.

A result cites the documents its claims rest on, and the laws and cases its words name without the
input having named them. Existence is looked up here again. Blocking: asks sources.

Which provisions an answer cites, and whether they are among those that answer the question.

A provision is an article of a named law. An answer cites those its text names and those that its
cited documents are. Pure; spelling does not matter, see ``text.references``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ondol.lab.evaluate.statistics import set_scores, told_scores
from ondol.lab.evaluate.task_items import ItemSources
from ondol.lab.evaluate.task_runs import Done, Figures, rows_of, said_in
from ondol.packs.legal.own_names import document_keys
from ondol.packs.legal.references import references_of
from ondol.store.documents import DocumentStore
from ondol.tasks.declaration import Task
from ondol.tasks.steps.tags import TagsParameters, names_in
from ondol.tasks.task_service import TaskResult

PROVISIONS = "provisions"
"""The result's key whose rows are provisions even where their titles name no article."""


@dataclass(frozen=True, slots=True)
class _Cited:
    names: frozenset[str]
    documents: tuple[str, ...]
    provision: bool

    @property
    def real(self) -> bool:
        return bool(self.documents)


@dataclass(frozen=True, slots=True)
class CitedProvisions:
    """Counts over one result: ``cited`` of any kind, of which ``real``; ``provisions`` among them, of
    which ``right``; ``found`` of the ``wanted``. ``tags`` are the fields of law of those that exist."""

    cited: int
    real: int
    provisions: int
    right: int
    wanted: int
    found: int
    tags: frozenset[str]


def cited_provisions(
    result: Mapping[str, Any],
    keys: Sequence[str],
    wanted: Sequence[str] | None,
    sources: ItemSources,
) -> CitedProvisions:
    """Return what ``result`` cites, against ``wanted``: articles by name, or documents."""
    every = _once(_cited(result, keys, sources))
    spoken = [one for one in every if one.provision]
    gold = [_names(name, name) for name in wanted or ()]
    right = [one for one in spoken if any(names & one.names for names in gold)]
    found = [names for names in gold if any(names & one.names for one in spoken)]
    return CitedProvisions(
        cited=len(every),
        real=sum(one.real for one in every),
        provisions=len(spoken),
        right=len(right),
        wanted=len(gold),
        found=len(found),
        tags=frozenset(tags_of((doc for one in spoken for doc in one.documents), sources)),
    )


def tags_of(documents: Iterable[str], sources: ItemSources) -> list[str]:
    """Return the fields of law that ``documents`` say of themselves, as the step ``tags`` names them."""
    return [
        name
        for document in documents
        for key in TagsParameters().keys
        for name in names_in(str(sources.metadata(document).get(key, "")))
    ]


def _cited(
    result: Mapping[str, Any], keys: Sequence[str], sources: ItemSources
) -> Iterable[_Cited]:
    for key, row in rows_of(result, keys):
        for one in row.get("evidence") or ():
            if isinstance(one, Mapping) and one["document"] != "input":
                name = str(one["document"])
                names = _names(name, str(one.get("title", "")))
                there = sources.text_of(one) is not None
                yield _Cited(
                    names, (name,) if there else (), key == PROVISIONS or _is_article(names)
                )
        yield from _spoken(key, row, sources)


def _spoken(key: str, row: Mapping[str, Any], sources: ItemSources) -> Iterable[_Cited]:
    """Yield the laws and cases that the words of a row name; a name that names none is one as well."""
    named = references_of(said_in(row))
    for one in named:
        if one.named and sources.given_names.isdisjoint(one.keys):
            names = frozenset(one.keys)
            yield _Cited(names, tuple(sources.named(one)), one.kind == "article")
    name = str(row.get("name") or "")
    if name and not references_of(name):
        yield _Cited(frozenset([name]), (), key == PROVISIONS)


def _names(document: str, title: str) -> frozenset[str]:
    """Return what a document is called by: its name, and the article or case it is."""
    keys = document_keys(document, title)
    return frozenset([document, *(key for key in keys if not key.startswith("ref제"))])


def _is_article(names: Iterable[str]) -> bool:
    return any(name.startswith("ref") and "조" in name for name in names)


def _once(cited: Iterable[_Cited]) -> list[_Cited]:
    """Return each thing cited once, as real as its best mention."""
    kept: list[_Cited] = []
    for one in cited:
        at = next((i for i, other in enumerate(kept) if other.names & one.names), None)
        if at is None:
            kept.append(one)
        elif one.real and not kept[at].real:
            kept[at] = one
    return kept


def law_figures(task: Task, done: Done, keys: Sequence[str], store: DocumentStore) -> Figures:
    """Return what is cited and how much of it is real and right, tags, outcomes, bands, fields."""
    cited = [
        cited_provisions(
            result.result,
            _law_keys(result, keys),
            run.item.expected.provisions,
            ItemSources(task, run.item.input, store),
        )
        for run, result in done
    ]
    gold = [
        one
        for one, (run, _) in zip(cited, done, strict=True)
        if run.item.expected.provisions is not None
    ]
    tags = [
        (set(run.item.expected.tags), _tags(result.result) or set(one.tags))
        for one, (run, result) in zip(cited, done, strict=True)
        if run.item.expected.tags is not None
    ]
    total = sum(one.cited for one in cited)
    right, spoken = sum(one.right for one in gold), sum(one.provisions for one in gold)
    wanted = sum(one.wanted for one in gold)
    return {
        "cited": total or None,
        "cited_real": sum(one.real for one in cited) / total if total else None,
        "provisions_cited": spoken if gold else None,
        "statute_relevance": right / spoken if spoken else None,
        "statute_recall": sum(one.found for one in gold) / wanted if wanted else None,
        **told_scores("tag", set_scores(tags)),
        **_verdicts(done),
    }


def _law_keys(result: TaskResult, keys: Sequence[str]) -> tuple[str, ...]:
    """Return the keys of claims, and of what a search found."""
    return tuple(dict.fromkeys([*keys, *({"provisions", "precedents"} & set(result.result))]))


def _tags(result: Mapping[str, Any]) -> set[str]:
    return {str(row["tag"]) for row in result.get("tags") or ()}


def _verdicts(done: Done) -> Figures:
    outcomes, bands, fields = [], [], []
    for run, result in done:
        expected, said = run.item.expected, result.result
        if expected.outcome is not None:
            outcomes.append((said.get("outcome") or {}).get("prediction") == expected.outcome)
        if expected.sentence_band is not None:
            band, given = said.get("sentence_band") or {}, expected.sentence_band
            within = band and band["least"] <= given.amount <= band["most"]
            bands.append(bool(within) and band["kind"] == given.kind)
        if expected.fields is not None:
            for kind, values in expected.fields.items():
                rows = (said.get("fields") or {}).get(kind) or ()
                fields.append((set(values), {str(row["value"]) for row in rows}))
    return {
        "outcome_accuracy": fmean(outcomes) if outcomes else None,
        "band_accuracy": fmean(bands) if bands else None,
        **told_scores("field", set_scores(fields)),
    }


@dataclass(frozen=True, slots=True)
class Provisions:
    """The provisions an answer cites, one key each, and how many of them are right."""

    cited: tuple[str, ...] = ()
    right: int = 0


def judge(
    answer: str,
    *,
    cited: Mapping[str, str],
    gold: Mapping[str, str],
    gold_texts: Iterable[str] = (),
) -> Provisions:
    """Return the provisions of ``answer`` and of its ``cited`` documents (name → title).

    Right are those that a ``gold`` document (name → title) is, or that ``gold_texts`` name.
    """
    wanted = {key for name, title in gold.items() for key in document_keys(name, title)}
    wanted |= {key for text in gold_texts for keys in _named(text) for key in keys}
    readings = [*_named(answer), *(document_keys(*one) for one in cited.items())]
    found: dict[str, bool] = {}
    for keys in readings:
        # Without its law an article says nothing; a reading of many words is one of several.
        spoken = [key for key in keys if not key.startswith("ref제") and "조" in key]
        right = [key for key in spoken if key in wanted]
        if spoken and not any(key in found for key in spoken):
            found[right[0] if right else spoken[-1]] = bool(right)
    return Provisions(tuple(found), sum(found.values()))


def _named(text: str) -> list[tuple[str, ...]]:
    found = references_of(text)
    return [one.keys for one in found if one.kind == "article" and one.named]
