"""What a collection knows of words: kept in its record, and its chunks indexed anew where needed.

Synonyms count at the next query. A dictionary, or a newer rule of Ondol's own, changes what chunks
are indexed under: their texts are analysed again, from the store, without embedding anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ondol.core.clock import Clock, SystemClock
from ondol.core.types import OnProgress, Passage, ReadDocument
from ondol.documents.chunking.index_words import TextAnalyzer, index_words
from ondol.language.dictionary import Dictionary
from ondol.language.korean import RULE
from ondol.language.synonyms import Group, Synonyms
from ondol.packs.legal.law_names import squeezed
from ondol.store.collection_words import KeywordStore
from ondol.store.documents import DocumentStore
from ondol.store.records import StoredDocument

_DOCUMENTS_AT_ONCE = 100
_CHUNKS_AT_ONCE = 2_000
"""Chunks rewritten in one transaction: a second or two in which nobody else writes."""


@dataclass(frozen=True, slots=True)
class CollectionWords:
    """What a collection knows of words, from its record."""

    dictionary: Dictionary
    synonyms: Synonyms

    def law_names(self) -> dict[str, str]:
        """Return every other member of a group with its first, which records are titled by."""
        return {
            squeezed(other): squeezed(group[0])
            for group in self.synonyms.groups
            for other in group[1:]
        }


def words_of(keywords: Mapping[str, Any]) -> CollectionWords:
    """Return the words in a collection's ``keywords``; what is not there is empty."""
    groups = tuple(tuple(group) for group in keywords.get("synonyms", ()))
    return _words(groups, tuple(keywords.get("dictionary", ())))


@lru_cache(maxsize=16)
def _words(groups: tuple[Group, ...], dictionary: tuple[str, ...]) -> CollectionWords:
    return CollectionWords(Dictionary(dictionary), Synonyms(groups))


@dataclass(frozen=True, slots=True)
class KeywordReport:
    """What a collection knows, and how many chunks were indexed anew (0 where none had to be)."""

    collection: str
    synonyms: int
    dictionary: int
    chunks: int
    reindexed: int
    seconds: float


class KeywordService:
    """Keeps and applies the words of the collections of ``store``. Blocking; call in a thread."""

    def __init__(
        self, store: DocumentStore, analyzer: TextAnalyzer, *, clock: Clock | None = None
    ) -> None:
        self._store = store
        self._words = KeywordStore(store.database)
        self._analyzer = analyzer
        self._clock = clock or SystemClock()

    def configure(
        self,
        collection: str,
        *,
        synonyms: Sequence[Group] | None = None,
        dictionary: Sequence[str] | None = None,
        progress: OnProgress | None = None,
    ) -> KeywordReport:
        """Keep synonyms and dictionary (``None``: as they are) and index anew what that changes.

        Stopped halfway, the next call goes on: the record says under what words all chunks are
        indexed only when they are. Raises ``NotFound`` for an unknown collection.
        """
        started = self._clock.monotonic()
        kept = dict(self._words.get(collection))
        if synonyms is not None:
            kept["synonyms"] = [list(group) for group in synonyms]
        if dictionary is not None:
            kept["dictionary"] = list(dictionary)
        words = words_of(kept).dictionary
        rule = applied_rule(words)
        reindexed = 0
        if kept.get("rule") != rule:
            # New documents come under the new words from here on; the old ones follow.
            self._words.set(collection, {**kept, "rule": ""})
            reindexed = self._reindex(collection, words, progress)
        self._words.set(collection, {**kept, "rule": rule})
        return KeywordReport(
            collection=collection,
            synonyms=len(kept.get("synonyms", ())),
            dictionary=len(kept.get("dictionary", ())),
            chunks=self._store.collection(collection).chunks,
            reindexed=reindexed,
            seconds=self._clock.monotonic() - started,
        )

    def _reindex(self, collection: str, words: Dictionary, progress: OnProgress | None) -> int:
        total = self._store.collection(collection).chunks
        done = 0
        rows: list[tuple[int, Sequence[str]]] = []
        for document in self._documents(collection):
            rows += self._rows(collection, document, words)
            if len(rows) >= _CHUNKS_AT_ONCE:
                done += self._words.rewrite(collection, rows)
                rows = []
                if progress is not None:
                    progress(min(done, total), total)
        if rows:
            done += self._words.rewrite(collection, rows)
        if progress is not None:
            progress(total, total)
        return done

    def _documents(self, collection: str) -> Iterator[StoredDocument]:
        after: str | None = None
        while page := self._store.documents(collection, limit=_DOCUMENTS_AT_ONCE, after=after):
            yield from page
            after = page[-1].document

    def _rows(
        self, collection: str, listed: StoredDocument, words: Dictionary
    ) -> list[tuple[int, Sequence[str]]]:
        chunks = self._words.chunks(collection, listed.document)
        if not chunks:
            return []
        stored = self._store.document(collection, listed.document)
        document = ReadDocument(source=stored.source, title=stored.title, text=stored.text)
        passages = [Passage(c.text, c.start, c.end, c.page, c.heading) for c in chunks]
        found = index_words(document, passages, analyzer=self._analyzer, dictionary=words)
        return [(chunk.chunk, tokens) for chunk, tokens in zip(chunks, found, strict=True)]


def words_for_ingest(store: DocumentStore, collection: str) -> Dictionary:
    """Return the dictionary to index new documents under; a new collection notes the rule."""
    kept = KeywordStore(store.database).get(collection)
    dictionary = words_of(kept).dictionary
    if "rule" not in kept and not store.collection(collection).chunks:
        KeywordStore(store.database).set(collection, {**kept, "rule": applied_rule(dictionary)})
    return dictionary


def applied_rule(dictionary: Dictionary) -> str:
    """Return the name of what chunks are indexed under: Ondol's rule and the dictionary's digest."""
    return f"{RULE}:{dictionary.digest}"
