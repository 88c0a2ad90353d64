"""The vector searches that must answer alike, and vectors that lie as real embeddings do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.contract.postgres_server import PostgresServer
from tests.store.builders import document

from ondol.app.store_assembly import open_documents
from ondol.core.clock import ManualClock
from ondol.core.types import FloatMatrix, Passage
from ondol.store.database import Database
from ondol.store.documents import DocumentStore
from ondol.store.records import NewChunk
from ondol.store.vector_search import VectorSearch
from ondol.store.vectors import VectorIndex

DIMENSIONS = 96
ABOVE = 400  # rows from which the approximate ones build an index
NAME = "c"

MakeSearch = Callable[[Database, VectorIndex], VectorSearch]


@dataclass(frozen=True)
class Subject:
    """One vector search; ``open`` opens the same store as often as it is called."""

    kind: str
    home: Path
    url: str = ""

    def open(self) -> DocumentStore:
        return open_documents(
            self.home,
            clock=ManualClock(1_700_000_000.0),
            vector_search=make_search(self.kind, self.home, self.url),
        )

    def filled(self, clouds: Clouds, *, documents: int = 0) -> DocumentStore:
        """A store with collection ``c`` and the first so many documents, everything built."""
        store = self.open()
        store.create_collection(NAME, embedder="e5", dimensions=DIMENSIONS, exist_ok=True)
        for number in range(documents):
            clouds.put(store, number)
        store.refresh_vectors(NAME)
        return store


class Copies:
    """Subjects that hold the same documents: each kind is filled once, then its files are copied."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._originals: dict[tuple[str, int], Subject] = {}

    def copy(
        self, kind: str, home: Path, *, documents: int, server: PostgresServer | None = None
    ) -> Subject:
        """A filled subject in ``home`` that nobody else uses and that is not open.

        ``server`` is where a ``pgvector`` subject gets a database of its own.
        """
        key = kind, documents
        if key not in self._originals:
            url = server.create() if server is not None else ""
            made = Subject(kind, self._folder / f"{kind}-{documents}", url)
            made.filled(Clouds(), documents=documents).close()
            self._originals[key] = made
        original = self._originals[key]
        shutil.copytree(original.home, home)
        return Subject(kind, home, server.create(of=original.url) if server is not None else "")


def make_search(kind: str, home: Path, url: str) -> MakeSearch | None:
    if kind == "ann":
        from ondol.store.vectors_ann import AnnVectors

        return lambda database, exact: AnnVectors(database, exact, home / "vectors", above=ABOVE)
    if kind == "pgvector":
        from ondol.store.vectors_pgvector import PgVectors

        return lambda database, _: PgVectors(database, url, index_above=ABOVE)
    return None


class Clouds:
    """Documents of 40 chunks around one topic each, all topics in one narrow cone, like e5's."""

    chunks = 40

    def __init__(self, seed: int = 0, *, topics: int = 40, dimensions: int = DIMENSIONS) -> None:
        random = np.random.default_rng(seed)
        self._cone = 1.5 * _units(random.standard_normal(dimensions))
        self._topics = _units(random.standard_normal((topics, dimensions)))
        self.dimensions = dimensions

    def near(self, topic: int, count: int, *, seed: int) -> FloatMatrix:
        """Unit vectors (count, d) about a topic."""
        noise = np.random.default_rng(seed).standard_normal((count, self.dimensions))
        centre = self._cone + self._topics[topic % len(self._topics)]
        return _units(centre + 0.8 * noise / np.sqrt(self.dimensions))

    def vectors(self, number: int, *, version: int = 0) -> FloatMatrix:
        return self.near(number, self.chunks, seed=1000 * version + number)

    def queries(self, count: int) -> FloatMatrix:
        return np.concatenate([self.near(n, 1, seed=10**6 + n) for n in range(count)])

    def put(
        self,
        store: DocumentStore,
        number: int,
        *,
        version: int = 0,
        collection: str = NAME,
        vectors: FloatMatrix | None = None,
    ) -> None:
        """Store document ``number``; replacing it where it is there."""
        rows = self.vectors(number, version=version) if vectors is None else vectors
        text = "가" * len(rows)
        store.put_document(
            collection,
            document(f"/{number}", text, metadata=labels(number)),
            digest=str(version + 1),
            chunks=[NewChunk(Passage("가", at, at + 1, 1), ["가"]) for at in range(len(rows))],
            vectors=rows,
        )


def labels(number: int) -> dict[str, Any]:
    return {"number": number, "half": number % 2, "tenth": number % 10}


def _units(rows: NDArray[np.float64]) -> FloatMatrix:
    unit: FloatMatrix = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
    return unit
