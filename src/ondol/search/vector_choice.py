"""Which vector search the settings name; each library is imported only when it is chosen."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from ondol.core.errors import SettingsError
from ondol.core.extras import install_command
from ondol.core.settings import Settings
from ondol.store.database import Database
from ondol.store.vector_search import VectorSearch
from ondol.store.vectors import VectorIndex

MakeSearch = Callable[[Database, VectorIndex], VectorSearch]


def vector_search(settings: Settings) -> MakeSearch | None:
    """Return what makes the search of ``vectors.index``, ``None`` for the exact scan.

    ``auto`` is the graph where its library is installed: small collections are scanned all the same.
    Raises ``SettingsError`` where what is named is not installed or not said.
    """
    chosen = settings.vectors
    graph = importlib.util.find_spec("usearch") is not None
    if chosen.index == "exact" or (chosen.index == "auto" and not graph):
        return None
    if chosen.index == "postgres":
        return _postgres(settings)
    if not graph:
        raise SettingsError(
            "vectors.index = 'ann' needs usearch, which is not installed",
            hint=f"{install_command('ann')}, or set vectors.index to exact",
            param="vectors.index",
        )
    from ondol.store.vectors_ann import AnnVectors

    folder = settings.home / "vectors"
    return lambda database, exact: AnnVectors(database, exact, folder, above=chosen.ann_above)


def _postgres(settings: Settings) -> MakeSearch:
    chosen = settings.vectors
    if importlib.util.find_spec("pg8000") is None:
        raise SettingsError(
            "vectors.index = 'postgres' needs pg8000, which is not installed",
            hint=f"{install_command('postgres')}, or set vectors.index to exact",
            param="vectors.index",
        )
    if not chosen.postgres_url:
        raise SettingsError(
            "vectors.index = 'postgres' without vectors.postgres_url",
            hint="set it to postgresql://user:password@host/database",
            param="vectors.postgres_url",
        )
    from ondol.store.vectors_pgvector import PgVectors

    return lambda database, _: PgVectors(
        database, chosen.postgres_url, schema=chosen.postgres_schema
    )
