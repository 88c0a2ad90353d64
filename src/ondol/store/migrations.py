"""How the shape of a database changes: numbered migrations that each room brings for its own tables.

Forward only: a migration runs once, in order, and raises ``user_version`` to its number. A published
migration is never edited; a change is a new one under the next number. Knows no table.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

APPLICATION_ID = 0x4F4E444C  # "ONDL", so that another program's database is recognised as such


@dataclass(frozen=True, slots=True)
class Migration:
    """The statements that bring a database from version ``number - 1`` to ``number``."""

    number: int
    statements: tuple[str, ...]


def in_order(migrations: Iterable[Migration]) -> tuple[Migration, ...]:
    """Return ``migrations`` by number; ``ValueError`` unless they are 1, 2, 3 … each once.

    A database opened without one of them would never get it later, so a gap is a fault of the caller.
    """
    ordered = tuple(sorted(migrations, key=lambda migration: migration.number))
    numbers = [migration.number for migration in ordered]
    if numbers != list(range(1, len(numbers) + 1)):
        raise ValueError(f"migrations {numbers}: they must be 1, 2, 3 … each once")
    return ordered


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> None:
    """Run what of ``migrations`` (in order) is missing; the caller holds the write transaction."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    for migration in migrations[version:]:
        for statement in migration.statements:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {migration.number}")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
