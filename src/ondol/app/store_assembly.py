"""The store with the tables of all rooms: the one place that knows which rooms have tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ondol.core.clock import Clock
from ondol.jobs import job_rows
from ondol.store import calibration_rows, collection_words, document_tables
from ondol.store.documents import DocumentStore
from ondol.telemetry import metric_rows

MIGRATIONS = (
    *document_tables.MIGRATIONS,
    *metric_rows.MIGRATIONS,
    *collection_words.MIGRATIONS,
    *calibration_rows.MIGRATIONS,
    *job_rows.MIGRATIONS,
)
"""The migrations of ``ondol.db``, of every room that keeps something in it."""


def open_documents(home: Path, *, clock: Clock, **options: Any) -> DocumentStore:
    """Open ``home/ondol.db``, made where absent; ``options`` are those of ``DocumentStore``."""
    return DocumentStore(home, clock=clock, migrations=MIGRATIONS, **options)
