"""The tables of collections, documents, texts and chunks, as they were made and changed."""

from __future__ import annotations

from ondol.store.migrations import Migration

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

# How the documents of a collection are cut (JSON, empty where nobody recorded it); what is read in
# the place of a chunk; and the digest of the text that was embedded for it.
_CHUNKING = (
    "ALTER TABLE collections ADD COLUMN chunking TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE chunks ADD COLUMN parent_start INTEGER",
    "ALTER TABLE chunks ADD COLUMN parent_stop INTEGER",
    "ALTER TABLE chunks ADD COLUMN indexed BLOB",
)

MIGRATIONS = (Migration(1, _INITIAL), Migration(5, _CHUNKING))
