"""A collection as it would be under another embedder: its vectors replaced, all else as it is.

Held in memory and gone afterwards; the store itself is not changed. Keywords, names and settings of
the collection are the very ones that search uses, so that two embedders are compared and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ondol.core.errors import InvalidInput, OndolError
from ondol.core.types import FloatMatrix
from ondol.services.embedding import EmbeddingService
from ondol.services.finetuning.pieces import Piece
from ondol.store.documents import DocumentStore
from ondol.store.records import Collection

_AT_ONCE = 128

Told = Callable[[int, int], None]


class RevectoredStore:
    """``store`` with one collection's chunks ``ids`` at other unit ``vectors`` ``(n, d)``."""

    def __init__(
        self,
        store: DocumentStore,
        collection: str,
        *,
        embedder: str,
        ids: Sequence[int],
        vectors: FloatMatrix,
    ) -> None:
        self._store = store
        self._name = collection
        self._embedder = embedder
        self._ids = np.asarray(ids, dtype=np.int64)
        self._vectors = vectors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def collection(self, name: str) -> Collection:
        """Return the collection as one of the other embedder's."""
        found = self._store.collection(name)
        return replace(found, embedder=self._embedder, dimensions=self._vectors.shape[1])

    def search_vectors(
        self,
        collection: str,
        query: NDArray[np.float32],
        *,
        limit: int,
        filter: Mapping[str, Any] | None = None,
    ) -> list[tuple[int, float]]:
        """Return the nearest chunks, as ``DocumentStore.search_vectors`` does; knows no filters."""
        if collection != self._name or filter:
            raise InvalidInput(
                f"only {self._name!r} without filters can be searched here", hint="leave them out"
            )
        cosines = self._vectors @ query
        order = np.lexsort((self._ids, -cosines))[:limit]
        return [(int(self._ids[at]), float(cosines[at])) for at in order]


async def revectored(
    store: DocumentStore,
    collection: str,
    pieces: Sequence[Piece],
    embedding: EmbeddingService,
    *,
    told: Told | None = None,
) -> DocumentStore:
    """Embed all ``pieces`` of ``collection`` anew; return the store as seen through those vectors.

    Memory: one float32 row a piece. Raises what embedding raises.
    """
    vectors = np.empty((len(pieces), embedding.dimensions), np.float32)
    for start in range(0, len(pieces), _AT_ONCE):
        some = [piece.text for piece in pieces[start : start + _AT_ONCE]]
        rows = await embedding.embed_each(some, role="document")
        for at, row in enumerate(rows, start):
            if isinstance(row, OndolError):
                raise row
            vectors[at] = row
        if told is not None:
            told(start + len(some), len(pieces))
    view = RevectoredStore(
        store,
        collection,
        embedder=embedding.model,
        ids=[piece.chunk for piece in pieces],
        vectors=vectors,
    )
    return cast("DocumentStore", view)
