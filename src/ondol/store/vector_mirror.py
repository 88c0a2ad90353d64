"""Moving vectors from one search to another, with proof that nothing was lost.

The database stays the truth: moving means bringing the new copy level with it, then comparing
count and checksum of what the copy really holds with what the database holds.
"""

from __future__ import annotations

from dataclasses import dataclass

from ondol.core.errors import StoreError
from ondol.store import collections
from ondol.store.database import Database
from ondol.store.vector_search import Contents, VectorSearch, contents_of, read_rows

_ATTEMPTS = 3  # another process may write between the two counts


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A collection whose copy was proven: so many vectors, of this checksum."""

    collection: str
    rows: int
    checksum: int


def mirror(database: Database, search: VectorSearch) -> list[Mirrored]:
    """Bring the copy of every collection level with the database and prove it.

    A copy that differs is dropped and made again.
    Raises ``StoreError`` where a copy still differs.
    """
    with database.read() as connection:
        names = [row.name for row in collections.rows(connection)]
    return [_mirrored(database, search, name) for name in names]


def _mirrored(database: Database, search: VectorSearch, name: str) -> Mirrored:
    for attempt in range(_ATTEMPTS):
        if attempt:
            search.forget(_identity(database, name))
        search.refresh(name)
        wanted, held = _truth(database, name), search.contents(name)
        if wanted == held:
            return Mirrored(name, held.rows, held.checksum)
    raise StoreError(
        f"the index of {name!r} holds {held.rows} vectors (checksum {held.checksum:016x}), "
        f"the database {wanted.rows} (checksum {wanted.checksum:016x})",
        hint="run it again while nothing is ingested; if it stays so, run `ondol doctor --repair`",
        code="store_damaged",
    )


def _identity(database: Database, name: str) -> int:
    with database.read() as connection:
        return collections.find(connection, name).id


def _truth(database: Database, name: str) -> Contents:
    with database.read() as connection:
        found = collections.find(connection, name)
        return contents_of(*read_rows(connection, found, after=0))
