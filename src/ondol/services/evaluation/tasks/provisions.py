"""Which provisions and cases a result cites, which of them exist, and which are the right ones.

A result cites the documents its claims rest on, and the laws and cases its words name without the
input having named them. Existence is looked up here again. Blocking: asks sources.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ondol.services.evaluation.tasks.claims import rows_of, said_in
from ondol.services.evaluation.tasks.sources import Sources
from ondol.services.tasks.steps.tags import TagsParameters, names_in
from ondol.text.own_names import document_keys
from ondol.text.references import references_of

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
    result: Mapping[str, Any], keys: Sequence[str], wanted: Sequence[str] | None, sources: Sources
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


def tags_of(documents: Iterable[str], sources: Sources) -> list[str]:
    """Return the fields of law that ``documents`` say of themselves, as the step ``tags`` names them."""
    return [
        name
        for document in documents
        for key in TagsParameters().keys
        for name in names_in(str(sources.metadata(document).get(key, "")))
    ]


def _cited(result: Mapping[str, Any], keys: Sequence[str], sources: Sources) -> Iterable[_Cited]:
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


def _spoken(key: str, row: Mapping[str, Any], sources: Sources) -> Iterable[_Cited]:
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
