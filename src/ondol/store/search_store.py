"""A database with what is derived from it: opened and closed, searched, checked and repaired.

Owns ``<home>/ondol.db`` (the truth) and the indexes of its vectors and keywords, which can always be
made again. Knows how chunks are found, not how documents come and go: that is ``documents``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ondol.core.clock import Clock
from ondol.core.events import NullObserver, Observer
from ondol.store import chunks as _chunk_rows
from ondol.store import collections, filters, store_check
from ondol.store.database import Database
from ondol.store.keyword_index import LexicalIndex, LexicalState
from ondol.store.migrations import Migration
from ondol.store.passages import PassageStore
from ondol.store.records import ChunkRow, StoreReport
from ondol.store.vector_file import Mirrored, mirror
from ondol.store.vector_search import VectorSearch, VectorState
from ondol.store.vectors import VectorIndex


class SearchedStore:
    """The database under ``home``, made where absent, and the search of its chunks.

    ``migrations`` are those of all who keep tables in the file. ``resident_bytes`` bounds the
    vectors held as float32. ``vector_search`` makes what finds the nearest vectors; exact unless
    given.
    """

    def __init__(
        self,
        home: Path,
        *,
        clock: Clock,
        migrations: Iterable[Migration],
        observer: Observer | None = None,
        resident_bytes: int = 512 * 2**20,
        busy_seconds: float = 30.0,
        vector_search: Callable[[Database, VectorIndex], VectorSearch] | None = None,
    ) -> None:
        self._clock = clock
        self._observer = observer or NullObserver()
        self._database = Database(
            home / "ondol.db", clock=clock, migrations=migrations, busy_seconds=busy_seconds
        )
        self._vectors = VectorIndex(self._database, home / "vectors", resident_bytes=resident_bytes)
        self._vectors.sweep()
        make = vector_search or (lambda _, exact: exact)
        self._search: VectorSearch = make(self._database, self._vectors)
        self._keywords = LexicalIndex(self._database)
        self.passages = PassageStore(self._database)

    @property
    def database(self) -> Database:
        """The file itself, for the rooms that keep their own tables in it."""
        return self._database

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Save the vector files worth saving and close the database. Later calls do nothing."""
        if not self._database.closed:
            if self._search is not self._vectors:
                self._search.close()
            self._keywords.close()
            self._vectors.close()
            self._database.close()

    def chunks(self, collection: str, ids: Sequence[int]) -> list[ChunkRow]:
        """Return chunks in the order asked; those deleted since they were found are left out."""
        with self._database.read() as connection:
            found = collections.find(connection, collection)
            return _chunk_rows.rows(connection, found.id, ids)

    def search_vectors(
        self,
        collection: str,
        query: NDArray[np.float32],
        *,
        limit: int,
        filter: Mapping[str, Any] | None = None,
    ) -> list[tuple[int, float]]:
        """Return up to ``limit`` (chunk, cosine) nearest to ``query`` (d,), ties by id.

        Exact unless the store was opened with another ``vector_search``. ``filter`` is applied
        before ranking. Raises ``InvalidInput`` for a wrong dimension.
        """
        condition = filters.compile_filter(filter)
        return self._search.nearest(collection, query, limit=limit, condition=condition)

    def search_lexical(
        self,
        collection: str,
        tokens: Sequence[str],
        *,
        limit: int,
        filter: Mapping[str, Any] | None = None,
        expansions: Sequence[str] = (),
    ) -> list[tuple[int, float]]:
        """Return up to ``limit`` (chunk, BM25) that hold any token, best first, ties by id.

        Tokens of ``expansions`` count half. ``filter`` is applied before ranking.
        """
        return self._keywords.search(
            collection,
            tokens,
            limit=limit,
            condition=filters.compile_filter(filter),
            expansions=expansions,
        )

    def lexical_state(self, collection: str) -> LexicalState:
        """Return how the keywords of a collection are searched and what memory that takes."""
        return self._keywords.state(collection)

    def refresh_keywords(self, collection: str) -> LexicalState:
        """Make now what keyword search would else make in the background."""
        self._keywords.refresh(collection)
        return self._keywords.state(collection)

    def vector_state(self, collection: str) -> VectorState:
        """Return how the vectors of a collection are searched and what memory that takes."""
        return self._search.state(collection)

    def refresh_vectors(self, collection: str) -> VectorState:
        """Build now what vector search needs and would else build in the background."""
        self._search.refresh(collection)
        return self._search.state(collection)

    def mirror_vectors(self) -> list[Mirrored]:
        """Bring every collection's index level with the database and prove it, row for row.

        Returns count and checksum by collection. Raises ``StoreError`` where they differ.
        """
        return mirror(self._database, self._search)

    def check(self, *, deep: bool = False) -> StoreReport:
        """Prove that nothing is orphaned and all counts agree; ``deep`` reads every page too."""
        return store_check.inspect(self._database, self._vectors, deep=deep)

    def repair(self) -> StoreReport:
        """Remove orphans, rebuild what is derived, and report what is left.

        A document whose chunks are not whole loses its digest, so that the next ingest of its
        source stores it anew.
        """
        if self._search is not self._vectors:
            with self._database.read() as connection:
                known = collections.rows(connection)
            for row in known:
                self._search.forget(row.id)
        self._keywords.forget_all()
        return store_check.repair(self._database, self._vectors)

    def _forget(self, collection: int) -> None:
        """Drop what is derived from a collection that is gone."""
        if self._search is not self._vectors:
            self._search.forget(collection)
        self._vectors.forget(collection)
        self._keywords.forget(collection)
