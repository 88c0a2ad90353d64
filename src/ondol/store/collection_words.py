"""What collections know of words, and the rewriting of their chunks' keywords; one call, one transaction.

The record is JSON that the store does not read. Chunks keep their ids and vectors when their
keywords are rewritten; a new ``lexicon`` tells every process that holds postings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ondol.store import chunks, collections, document_rows, lexical
from ondol.store.database import Database
from ondol.store.migrations import Migration
from ondol.store.records import ChunkRow

# What a collection knows of words (JSON), and the word that changes when its chunks are analysed anew.
_COLUMNS = (
    "ALTER TABLE collections ADD COLUMN lexicon TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE collections ADD COLUMN keywords TEXT NOT NULL DEFAULT '{}'",
)
MIGRATIONS = (Migration(3, _COLUMNS),)


class KeywordStore:
    """The words of the collections of ``database``. An unknown collection is ``NotFound``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, collection: str) -> dict[str, Any]:
        """Return what a collection knows of words; empty unless it was told."""
        with self._database.read() as connection:
            found = collections.find(connection, collection)
            kept: dict[str, Any] = json.loads(collections.keywords(connection, found.id))
        return kept

    def set(self, collection: str, keywords: Mapping[str, Any]) -> None:
        """Keep what a collection knows of words; its chunks stay as they are."""
        kept = document_rows.as_json(keywords, param="keywords")
        with self._database.write() as connection:
            found = collections.find(connection, collection)
            collections.set_keywords(connection, found.id, kept)

    def hold_hangul(self) -> bool:
        """Return whether any collection has a keyword that begins with Hangul."""
        with self._database.read() as connection:
            known = collections.rows(connection)
            return any(
                lexical.holds_between(connection, row.id, first="가", last="힣\U0010ffff")
                for row in known
            )

    def chunks(self, collection: str, document: str) -> list[ChunkRow]:
        """Return all chunks of a document, in its order."""
        with self._database.read() as connection:
            found = collections.find(connection, collection)
            identity = document_rows.find(connection, found, document)
            return chunks.of_document(connection, found.id, identity)

    def rewrite(self, collection: str, rows: Sequence[tuple[int, Sequence[str]]]) -> int:
        """Index chunks anew under other tokens; return how many of them still exist."""
        with self._database.write() as connection:
            found = collections.find(connection, collection)
            rewritten = chunks.rewrite_keywords(connection, found.id, rows)
            collections.new_lexicon(connection, found.id)
            collections.touch(connection, found.id)
        return rewritten
