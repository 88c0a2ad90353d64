"""The keywords under which the passages of a document are indexed: its words, and its own names.

One place for the ingest and for indexing anew, so that both come to the same words. Knows no store.

What of a passage is embedded and indexed: its words with the names it stands under.

A change here changes what a collection holds, so ``RECIPE`` must change with it: every document
is then cut and indexed again at its next ingest, and embedded again where its text changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

from ondol.core.types import Passage, ReadDocument
from ondol.language.dictionary import Dictionary
from ondol.packs.legal.own_names import own_keys

RECIPE = "4"
_SHORT_DOCUMENT = 4000
_DIGEST_BYTES = 16


def indexed_text(document: ReadDocument, passage: Passage) -> str:
    """Return ``passage`` with its document's title (short documents) and heading before it."""
    names = []
    title = document.title
    if title and len(document.text) <= _SHORT_DOCUMENT and not passage.heading.startswith(title):
        names.append(title)
    if passage.heading and passage.heading not in passage.text:
        names.append(passage.heading)
    return "\n".join([*names, passage.text])


def indexed_digest(text: str) -> bytes:
    """Return what tells one indexed text from another; equal texts have equal vectors."""
    data = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


class TextAnalyzer(Protocol):
    """Turns texts into keyword tokens."""

    def tokens_many(
        self, texts: Sequence[str], *, dictionary: Dictionary = ...
    ) -> list[list[str]]: ...


def index_words(
    document: ReadDocument,
    passages: Sequence[Passage],
    *,
    analyzer: TextAnalyzer,
    dictionary: Dictionary,
) -> list[list[str]]:
    """Return the tokens of each passage, in reading order, and the keys it is looked up by."""
    texts = [indexed_text(document, passage) for passage in passages]
    words = analyzer.tokens_many(texts, dictionary=dictionary)
    keys = own_keys(document, passages)
    return [[*found, *own] for found, own in zip(words, keys, strict=True)]
