"""The shape of the database, version by version.

Forward only: each migration is a tuple of statements that runs once, in one transaction, and
raises ``user_version`` by one. A published migration is never edited; a change is a new one.
"""

from __future__ import annotations

import sqlite3

APPLICATION_ID = 0x4F4E444C  # "ONDL", so that another program's database is recognised as such

_INITIAL = (
    """
    CREATE TABLE collections(
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        embedder TEXT NOT NULL,
        dimensions INTEGER NOT NULL CHECK (dimensions > 0),
        created REAL NOT NULL,
        metadata TEXT NOT NULL,
        stamp TEXT NOT NULL,
        snapshot TEXT
    )
    """,
    """
    CREATE TABLE documents(
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        collection_id INTEGER NOT NULL REFERENCES collections(id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        source TEXT NOT NULL,
        container TEXT,
        title TEXT NOT NULL,
        media_type TEXT NOT NULL,
        digest TEXT NOT NULL,
        ingested REAL NOT NULL,
        characters INTEGER NOT NULL,
        metadata TEXT NOT NULL,
        pages TEXT NOT NULL,
        UNIQUE (collection_id, name),
        UNIQUE (collection_id, source)
    )
    """,
    "CREATE INDEX documents_by_container ON documents(collection_id, container)",
    """
    CREATE TABLE texts(
        document_id INTEGER NOT NULL REFERENCES documents(id) ON DELETE CASCADE,
        start INTEGER NOT NULL,
        text TEXT NOT NULL,
        PRIMARY KEY (document_id, start)
    )
    """,
    """
    CREATE TABLE chunks(
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        document_id INTEGER NOT NULL REFERENCES documents(id) ON DELETE CASCADE,
        collection_id INTEGER NOT NULL REFERENCES collections(id) ON DELETE CASCADE,
        start INTEGER NOT NULL,
        stop INTEGER NOT NULL,
        page INTEGER,
        heading TEXT NOT NULL,
        vector BLOB NOT NULL
    )
    """,
    "CREATE INDEX chunks_by_document ON chunks(document_id)",
    "CREATE INDEX chunks_by_collection ON chunks(collection_id)",
)

# One row for every request offered to a lane; ``generation_metrics`` has a second one, under the
# same id, for those that got to the generator. Ids only grow: the lowest is the oldest.
_REQUEST_METRICS = (
    """
    CREATE TABLE analysis_metrics(
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        time REAL NOT NULL,
        request_id TEXT NOT NULL,
        lane TEXT NOT NULL,
        model TEXT NOT NULL,
        form TEXT NOT NULL,
        outcome TEXT NOT NULL,
        code TEXT NOT NULL,
        queue_ms REAL NOT NULL,
        tokenize_ms REAL NOT NULL,
        retrieve_ms REAL NOT NULL,
        inference_ms REAL NOT NULL,
        total_ms REAL NOT NULL,
        tokens_in INTEGER NOT NULL,
        tokens_out INTEGER NOT NULL,
        tokens_cached INTEGER NOT NULL,
        deadline_ms REAL,
        deadline_met INTEGER,
        predicted_ms REAL
    )
    """,
    "CREATE INDEX analysis_metrics_by_time ON analysis_metrics(time)",
    """
    CREATE TABLE generation_metrics(
        id INTEGER PRIMARY KEY REFERENCES analysis_metrics(id) ON DELETE CASCADE,
        time REAL NOT NULL,
        request_id TEXT NOT NULL,
        lane TEXT NOT NULL,
        model TEXT NOT NULL,
        form TEXT NOT NULL,
        outcome TEXT NOT NULL,
        queue_ms REAL NOT NULL,
        prefill_time_ms REAL,
        decode_time_ms REAL,
        ttft_ms REAL,
        tps REAL,
        tpot_ms REAL,
        itl_p50_ms REAL,
        itl_p99_ms REAL,
        total_ms REAL NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL,
        cached_tokens INTEGER NOT NULL,
        deadline_ms REAL,
        deadline_met INTEGER,
        predicted_ms REAL
    )
    """,
    "CREATE INDEX generation_metrics_by_time ON generation_metrics(time)",
)

# What a collection knows of words (JSON), and the word that changes when its chunks are analysed anew.
_KEYWORDS = (
    "ALTER TABLE collections ADD COLUMN lexicon TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE collections ADD COLUMN keywords TEXT NOT NULL DEFAULT '{}'",
)

# What was measured about searching a collection (JSON).
_CALIBRATION = ("ALTER TABLE collections ADD COLUMN calibration TEXT NOT NULL DEFAULT '{}'",)

# How the documents of a collection are cut (JSON, empty where nobody recorded it); what is read in
# the place of a chunk; and the digest of the text that was embedded for it.
_CHUNKING = (
    "ALTER TABLE collections ADD COLUMN chunking TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE chunks ADD COLUMN parent_start INTEGER",
    "ALTER TABLE chunks ADD COLUMN parent_stop INTEGER",
    "ALTER TABLE chunks ADD COLUMN indexed BLOB",
)

# Jobs and their items. Equal items of a job are worked once: the others name the first in ``same_as``
# and have no result of their own. A job that is ``doomed`` is gone for everybody; its rows go bit by bit.
_JOBS = (
    """
    CREATE TABLE jobs(
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        task TEXT NOT NULL,
        tenant TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'cancelled', 'failed')),
        priority INTEGER NOT NULL,
        key TEXT NOT NULL,
        digest BLOB NOT NULL,
        request_id TEXT NOT NULL,
        total INTEGER NOT NULL CHECK (total > 0),
        created REAL NOT NULL,
        started REAL,
        resumed REAL,
        finished REAL,
        doomed INTEGER NOT NULL DEFAULT 0
    )
    """,
    "CREATE UNIQUE INDEX jobs_by_key ON jobs(tenant, key) WHERE key <> '' AND NOT doomed",
    "CREATE INDEX jobs_open ON jobs(number) WHERE state IN ('queued', 'running')",
    """
    CREATE TABLE job_items(
        job INTEGER NOT NULL REFERENCES jobs(number) ON DELETE CASCADE,
        ordinal INTEGER NOT NULL,
        id TEXT NOT NULL,
        digest BLOB NOT NULL,
        prefix_key TEXT NOT NULL,
        same_as INTEGER,
        state TEXT NOT NULL CHECK (state IN ('queued', 'leased', 'done', 'failed', 'cancelled')),
        code TEXT NOT NULL DEFAULT '',
        attempts INTEGER NOT NULL DEFAULT 0,
        losses INTEGER NOT NULL DEFAULT 0,
        not_before REAL NOT NULL DEFAULT 0,
        refused_since REAL,
        lease_until REAL,
        lease_token TEXT,
        started REAL,
        finished REAL,
        input TEXT NOT NULL,
        result TEXT,
        error TEXT,
        PRIMARY KEY (job, ordinal)
    )
    """,
    "CREATE INDEX job_items_by_state ON job_items(job, state, code, same_as)",
    """
    CREATE INDEX job_items_next ON job_items(job, prefix_key, ordinal)
        WHERE state = 'queued' AND same_as IS NULL
    """,
    "CREATE INDEX job_items_leased ON job_items(lease_until) WHERE state = 'leased'",
    "CREATE INDEX job_items_equal ON job_items(job, same_as) WHERE same_as IS NOT NULL",
    """
    CREATE INDEX job_items_ended ON job_items(job, finished)
        WHERE finished IS NOT NULL AND same_as IS NULL
    """,
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    _INITIAL,
    _REQUEST_METRICS,
    _KEYWORDS,
    _CALIBRATION,
    _CHUNKING,
    _JOBS,
)
LATEST = len(MIGRATIONS)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the database to ``LATEST``; the caller holds the write transaction."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    for number in range(version, LATEST):
        for statement in MIGRATIONS[number]:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number + 1}")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
