"""The passages of a collection as its embedder reads them, document by document."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ondol.core.types import Passage, ReadDocument
from ondol.store.documents import DocumentStore
from ondol.store.keyword_rows import KeywordStore
from ondol.text.indexing import indexed_text

_DOCUMENTS_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Piece:
    """A stored chunk: its id, its document's public name, title and heading, and what is embedded."""

    chunk: int
    document: str
    title: str
    heading: str
    bare: str
    text: str


def pieces_of(store: DocumentStore, collection: str) -> Iterator[Piece]:
    """Yield every chunk of ``collection``, documents by name; raises ``NotFound``."""
    after: str | None = None
    while page := store.documents(collection, limit=_DOCUMENTS_AT_ONCE, after=after):
        for listed in page:
            stored = store.document(collection, listed.document)
            document = ReadDocument(
                source=stored.source,
                title=stored.title,
                text=stored.text,
                pages=stored.pages,
                metadata=stored.metadata,
                media_type=stored.media_type,
            )
            for row in KeywordStore(store.database).chunks(collection, listed.document):
                passage = Passage(row.text, row.start, row.end, row.page, row.heading)
                yield Piece(
                    chunk=row.chunk,
                    document=listed.document,
                    title=stored.title,
                    heading=row.heading,
                    bare=row.text,
                    text=indexed_text(document, passage),
                )
        after = page[-1].document
