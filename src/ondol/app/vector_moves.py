"""Filling the vector index that the settings name, and what each collection is searched with."""

from __future__ import annotations

from ondol.app.store_assembly import open_documents
from ondol.core.clock import SystemClock
from ondol.core.settings import Settings
from ondol.search.vector_choice import vector_search
from ondol.store.documents import DocumentStore
from ondol.store.vector_file import Mirrored
from ondol.store.vector_search import VectorState


def states(settings: Settings) -> dict[str, VectorState]:
    """Return how each collection's vectors are searched."""
    with _store(settings) as store:
        return {found.name: store.vector_state(found.name) for found in store.collections()}


def moved(settings: Settings) -> list[Mirrored]:
    """Fill the index and compare it with the database, collection by collection.

    Raises ``StoreError`` where a row is missing or differs.
    """
    with _store(settings) as store:
        for found in store.collections():
            store.refresh_vectors(found.name)
        return store.mirror_vectors()


def _store(settings: Settings) -> DocumentStore:
    return open_documents(settings.home, clock=SystemClock(), vector_search=vector_search(settings))
