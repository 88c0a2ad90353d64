"""What was measured about searching each collection, kept in its row.

Knows no meaning of what it keeps: that is the caller's. Reading it is part of reading a collection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ondol.store import collections, document_rows
from ondol.store.database import Database
from ondol.store.migrations import Migration

MIGRATIONS = (
    Migration(4, ("ALTER TABLE collections ADD COLUMN calibration TEXT NOT NULL DEFAULT '{}'",)),
)


class CalibrationStore:
    """Writes the calibrations of collections; an unknown collection is ``NotFound``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def set(self, collection: str, calibration: Mapping[str, Any]) -> None:
        """Keep ``calibration`` in place of what was kept before; ``{}`` forgets it."""
        kept = document_rows.as_json(calibration, param="calibration")
        with self._database.write() as connection:
            found = collections.find(connection, collection)
            collections.set_calibration(connection, found.id, kept)
