"""Puts first what a query names outright: a case by its number, an article by its law and number.

``Lookups`` finds the chunks through the keys kept among their keywords; ``brought_forward`` and
``kept_first`` are pure and change an order only. A query that names nothing costs one scan of its
text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from ondol.core.types import Hit
from ondol.documents.keywords import words_of
from ondol.packs.legal.law_names import given_names, law_names, read_law_names
from ondol.packs.legal.references import Reference, laws_spoken_of, references_of
from ondol.store.documents import DocumentStore

PER_REFERENCE = 3
"""Chunks that one reference brings forward; the rest of the answer is search's."""

_LOOKED_AT = 64
_CLAUSES = "①②③④⑤⑥⑦⑧⑨⑩⑪⑫⑬⑭⑮⑯⑰⑱⑲⑳"

Ranking = list[tuple[int, float]]


class Lookups:
    """Looks up the references of queries; ``names_file`` adds short names of laws to the known.

    The file is read once in a process. Raises ``NotFound`` or ``InvalidInput`` at once where it
    cannot be used.
    """

    def __init__(self, store: DocumentStore, *, names_file: Path | None = None) -> None:
        self._store = store
        self._names = law_names()
        if names_file is not None:
            self._names = {**self._names, **_names_in(names_file)}

    def chunks(
        self,
        collection: str,
        query: str,
        ranking: Sequence[tuple[int, float]],
        *,
        metadata: Mapping[str, Any],
        keywords: Mapping[str, Any] | None = None,
        filter: Mapping[str, Any] | None = None,
        before: str = "",
    ) -> list[int]:
        """Return the chunks ``query`` names, best first: at most three for each reference, in turn.

        Chunks of one reference come in the order of ``ranking``, those with its 항 before.
        ``metadata`` and ``keywords`` are the collection's; its ``law_names`` (short → full) and the
        names in its groups of synonyms are known too. An article without a law is one of the law
        spoken of last in the query or, before it, in what it leans on (``before``).
        """
        given = words_of(keywords or {}).law_names() | given_names(metadata.get("law_names"))
        names = {**self._names, **given} if given else self._names
        laws = laws_spoken_of(query, before, names=names) if before else ()
        references = references_of(query, names=names, laws=laws)
        if not references:
            return []
        place = {chunk: at for at, (chunk, _) in enumerate(ranking)}
        groups = [self._named(collection, one, place, filter) for one in references]
        turns = [group[at] for at in range(PER_REFERENCE) for group in groups if at < len(group)]
        return list(dict.fromkeys(turns))

    def of(self, collection: str, reference: Reference) -> list[int]:
        """Return the chunks that one reference, read from a text with its law, names; at most three."""
        return self._named(collection, reference, {}, None)

    def cited_by(self, collection: str, texts: Sequence[str]) -> list[tuple[int, float]]:
        """Return the first chunk of each record that ``texts`` name, with its weight, most first.

        The n-th text gives one over n to everything it names.
        """
        weights: dict[int, float] = {}
        for rank, text in enumerate(texts, start=1):
            found = (self.of(collection, one) for one in references_of(text, names=self._names))
            for chunk in {chunks[0] for chunks in found if chunks}:
                weights[chunk] = weights.get(chunk, 0.0) + 1 / rank
        return sorted(weights.items(), key=lambda one: (-one[1], one[0]))

    def _named(
        self,
        collection: str,
        reference: Reference,
        place: Mapping[int, int],
        filter: Mapping[str, Any] | None,
    ) -> list[int]:
        for key in reference.keys:
            found = self._store.search_lexical(collection, [key], limit=_LOOKED_AT, filter=filter)
            if not found:
                continue
            ids = sorted((chunk for chunk, _ in found), key=lambda c: (place.get(c, len(place)), c))
            if reference.clause or not reference.named:
                ids = self._closer(collection, reference, ids)
            return ids[:PER_REFERENCE]
        return []

    def _closer(self, collection: str, reference: Reference, ids: Sequence[int]) -> list[int]:
        """Put the chunks with the clause first; an article without a law must be one document's."""
        rows = self._store.chunks(collection, ids)
        if not reference.named and len({row.document for row in rows}) != 1:
            return []
        mark = _CLAUSES[reference.clause - 1 : reference.clause] if reference.clause else ""
        return [row.chunk for row in sorted(rows, key=lambda row: mark not in row.text)]


@cache
def _names_in(file: Path) -> dict[str, str]:
    return read_law_names(file)


def brought_forward(ranking: Ranking, chunks: Sequence[int]) -> Ranking:
    """Return ``ranking`` with ``chunks`` before all else, at the score of its best."""
    if not chunks:
        return ranking
    best = ranking[0][1] if ranking else 1.0
    named = set(chunks)
    return [*((chunk, best) for chunk in chunks), *(one for one in ranking if one[0] not in named)]


def kept_first(hits: list[Hit], chunks: Sequence[int]) -> list[Hit]:
    """Return reranked ``hits`` with those of ``chunks`` before all else, at the best score."""
    if not chunks or not hits:
        return hits
    by_chunk = {hit.chunk: hit for hit in hits}
    best = max(hit.score for hit in hits)
    named = [replace(by_chunk[chunk], score=best) for chunk in chunks if chunk in by_chunk]
    return [*named, *(hit for hit in hits if hit.chunk not in set(chunks))]
