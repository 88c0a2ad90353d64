"""Documents, chunks and vectors made to order, and the store as a plain model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ondol.app.store_assembly import open_documents
from ondol.core.clock import ManualClock
from ondol.core.types import FloatMatrix, Page, Passage, ReadDocument
from ondol.store.documents import DocumentStore
from ondol.store.records import NewChunk

DIMENSIONS = 16


def open_store(home: Path, **options: Any) -> DocumentStore:
    return open_documents(home, clock=ManualClock(1_700_000_000.0), **options)


def filled(home: Path, **options: Any) -> DocumentStore:
    """A store with the empty collection ``c``."""
    store = open_store(home, **options)
    store.create_collection("c", embedder="e5", dimensions=DIMENSIONS, exist_ok=True)
    return store


def document(source: str, text: str = "본문이다. Body.", **fields: Any) -> ReadDocument:
    defaults: dict[str, Any] = {"title": f"제목 {source}", "pages": (Page(1, 0, len(text)),)}
    return ReadDocument(source=source, text=text, **{**defaults, **fields})


def cut(text: str, size: int = 8, tokens: Sequence[str] | None = None) -> list[NewChunk]:
    """Chunks of ``size`` characters; their tokens are their words unless given."""
    return [
        NewChunk(
            Passage(text[i : i + size], i, min(i + size, len(text)), 1, "절"),
            tokens if tokens is not None else text[i : i + size].split(),
        )
        for i in range(0, len(text), size)
    ]


def units(count: int, seed: int = 0, dimensions: int = DIMENSIONS) -> FloatMatrix:
    rows = np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)
    unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def put(
    store: DocumentStore,
    source: str,
    text: str = "본문이다. Body.",
    *,
    collection: str = "c",
    digest: str = "d1",
    seed: int = 0,
    tokens: Sequence[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    container: str | None = None,
    vectors: FloatMatrix | None = None,
) -> Literal["added", "updated"]:
    chunks = cut(text, tokens=tokens)
    return store.put_document(
        collection,
        document(source, text, metadata=metadata or {}),
        digest=digest,
        chunks=chunks,
        vectors=units(len(chunks), seed) if vectors is None else vectors,
        container=container,
    )


def stored_vectors(store: DocumentStore, collection: str = "c") -> dict[int, float]:
    """Every chunk of the collection by a search that ranks them all: id → cosine with e1."""
    query = np.eye(1, DIMENSIONS, dtype=np.float32)[0]
    return dict(store.search_vectors(collection, query, limit=1_000_000))


def cosine(row: NDArray[np.float32], query: NDArray[np.float32]) -> float:
    """The score the store must give: the dot product of the float16 row and the unit query."""
    half = row.astype(np.float16).astype(np.float64)
    unit = (query / np.linalg.norm(query)).astype(np.float32).astype(np.float64)
    return float(half @ unit)
