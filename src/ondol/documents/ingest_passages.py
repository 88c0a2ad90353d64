"""One document on its way into a collection: cut, its words found, its vectors had or made.

Passages whose indexed text the collection already holds for the same source keep their vector; only
the others are embedded. Knows no file, no transaction and no report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.core.chunk_options import ChunkOptions
from ondol.core.errors import OndolError
from ondol.core.types import FloatMatrix, Passage, ReadDocument
from ondol.documents.chunking.chunking import chunk
from ondol.documents.chunking.index_words import (
    RECIPE,
    TextAnalyzer,
    index_words,
    indexed_digest,
    indexed_text,
)
from ondol.language.dictionary import Dictionary
from ondol.runtime.encoders.embedding import EmbeddingService
from ondol.store.records import NewChunk

Vectors = dict[bytes, NDArray[np.float32]]
"""Vectors (d,) by the digest of the indexed text."""


@dataclass(frozen=True, slots=True)
class PreparedDocument:
    """A document cut into passages. ``held`` are the vectors it has already."""

    document: ReadDocument
    digest: str
    container: str | None
    passages: list[Passage]
    tokens: list[list[str]]
    texts: list[str]
    digests: list[bytes]
    held: Vectors = field(default_factory=dict)

    @property
    def chunks(self) -> list[NewChunk]:
        """The passages as the store takes them."""
        rows = zip(self.passages, self.tokens, self.digests, strict=True)
        return [NewChunk(passage, tokens, digest) for passage, tokens, digest in rows]

    @property
    def missing(self) -> list[tuple[bytes, str]]:
        """Digest and text of what must be embedded, each text once."""
        texts = dict(zip(self.digests, self.texts, strict=True))
        return [(digest, text) for digest, text in texts.items() if digest not in self.held]


def cut_passages(document: ReadDocument, chunking: ChunkOptions) -> list[Passage]:
    """Return the passages of ``document`` as its collection wants them cut."""
    return chunk(
        document,
        target_chars=chunking.target,
        overlap_chars=chunking.overlap,
        strategy=chunking.strategy,
    )


def prepare(
    document: ReadDocument,
    passages: list[Passage],
    *,
    digest: str,
    container: str | None,
    analyzer: TextAnalyzer,
    dictionary: Dictionary,
    held: Vectors | None = None,
) -> PreparedDocument:
    """Return ``document`` ready to be embedded and stored."""
    texts = [indexed_text(document, passage) for passage in passages]
    return PreparedDocument(
        document=document,
        digest=digest,
        container=container,
        passages=passages,
        tokens=index_words(document, passages, analyzer=analyzer, dictionary=dictionary),
        texts=texts,
        digests=[indexed_digest(text) for text in texts],
        held=held or {},
    )


async def embed_missing(
    group: Sequence[PreparedDocument], embedding: EmbeddingService
) -> list[FloatMatrix | OndolError]:
    """Return the vectors (n, d) of each document of ``group``, or why it has none."""
    wanted = [pair for prepared in group for pair in prepared.missing]
    rows: list[Any] = []
    if wanted:
        rows = list(await embedding.embed_each([text for _, text in wanted], role="document"))
    found: list[FloatMatrix | OndolError] = []
    at = 0
    for prepared in group:
        mine = dict(prepared.held)
        error: OndolError | None = None
        for digest, _ in prepared.missing:
            if isinstance(rows[at], OndolError):
                error = error or rows[at]
            else:
                mine[digest] = rows[at]
            at += 1
        found.append(error or np.stack([mine[digest] for digest in prepared.digests]))
    return found


def recipe(chunking: ChunkOptions, model: str) -> str:
    """Return the word for how passages come to be: under another one they are made again."""
    return f"{RECIPE}:{model}:{chunking.strategy}:{chunking.target}:{chunking.overlap}"
