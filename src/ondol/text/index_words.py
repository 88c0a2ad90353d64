"""The keywords under which the passages of a document are indexed: its words, and its own names.

One place for the ingest and for indexing anew, so that both come to the same words. Knows no store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ondol.core.types import Passage, ReadDocument
from ondol.text.dictionary import Dictionary
from ondol.text.indexing import indexed_text
from ondol.text.own_names import own_keys


class Analyzer(Protocol):
    """Turns texts into keyword tokens."""

    def tokens_many(
        self, texts: Sequence[str], *, dictionary: Dictionary = ...
    ) -> list[list[str]]: ...


def index_words(
    document: ReadDocument,
    passages: Sequence[Passage],
    *,
    analyzer: Analyzer,
    dictionary: Dictionary,
) -> list[list[str]]:
    """Return the tokens of each passage, in reading order, and the keys it is looked up by."""
    texts = [indexed_text(document, passage) for passage in passages]
    words = analyzer.tokens_many(texts, dictionary=dictionary)
    keys = own_keys(document, passages)
    return [[*found, *own] for found, own in zip(words, keys, strict=True)]
