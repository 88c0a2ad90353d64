"""Proof that the store agrees with itself, and the remedy where it does not.

``inspect`` reads and counts; ``repair`` removes what hangs on nothing, takes broken documents out
of search (their digest becomes empty, so that the next ingest stores them anew) and rebuilds the
derived files. Neither touches what is whole.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import numpy as np

from ondol.core.errors import StoreError
from ondol.store import chunks, collections, lexical, texts
from ondol.store.collections import CollectionRow
from ondol.store.database import Database
from ondol.store.records import Problem, StoreReport
from ondol.store.vector_search import read_rows
from ondol.store.vectors import VectorIndex

# What no row may be: kind → SELECT of the rowids of ``table`` that are.
_ORPHANS = {
    ("document without collection", "documents"): (
        "SELECT d.id FROM documents d LEFT JOIN collections k ON k.id = d.collection_id "
        "WHERE k.id IS NULL"
    ),
    ("text without document", "texts"): (
        "SELECT t.rowid FROM texts t LEFT JOIN documents d ON d.id = t.document_id "
        "WHERE d.id IS NULL"
    ),
    ("chunk without document", "chunks"): (
        "SELECT c.id FROM chunks c LEFT JOIN documents d ON d.id = c.document_id "
        "WHERE d.id IS NULL OR d.collection_id <> c.collection_id"
    ),
}

# What makes a document unusable: kind → SELECT of (document id, how many rows).
_BROKEN = {
    "document without text": (
        "SELECT d.id AS id, 1 FROM documents d LEFT JOIN texts t ON t.document_id = d.id AND t.start = 0 "
        "WHERE t.start IS NULL"
    ),
    "chunk outside its text": (
        "SELECT d.id AS id, count(*) FROM chunks c JOIN documents d ON d.id = c.document_id "
        "WHERE c.start < 0 OR c.start >= c.stop OR c.stop > d.characters GROUP BY d.id"
    ),
    "parent outside its text": (
        "SELECT d.id AS id, count(*) FROM chunks c JOIN documents d ON d.id = c.document_id "
        "WHERE (c.parent_start IS NULL) <> (c.parent_stop IS NULL) OR c.parent_start < 0 "
        "OR c.parent_start > c.start OR c.parent_stop < c.stop OR c.parent_stop > d.characters "
        "GROUP BY d.id"
    ),
    "vector of the wrong length": (
        "SELECT c.document_id AS id, count(*) FROM chunks c JOIN collections k ON k.id = c.collection_id "
        "WHERE typeof(c.vector) <> 'blob' OR length(c.vector) <> 2 * k.dimensions "
        "GROUP BY c.document_id"
    ),
}
_CUT_TEXT = (
    "SELECT d.id AS id, 1 FROM documents d WHERE d.characters <> "
    "(SELECT coalesce(sum(length(t.text)), -1) FROM texts t WHERE t.document_id = d.id)"
)
_NO_TOKENS = (
    "SELECT c.document_id, count(*) FROM chunks c WHERE c.collection_id = ? "
    "AND c.id NOT IN (SELECT id FROM lexical_{0}_docsize) GROUP BY c.document_id"
)
_NO_CHUNK = (
    "SELECT id FROM lexical_{0}_docsize "
    "WHERE id NOT IN (SELECT id FROM chunks WHERE collection_id = {0})"
)


def inspect(database: Database, vectors: VectorIndex, *, deep: bool) -> StoreReport:
    """Return the state of the store; quick unless ``deep``, which reads every page and row."""
    with database.read() as connection:
        known = collections.rows(connection)
        problems = list(_problems(connection, known, deep=deep))
        documents: int = connection.execute("SELECT count(*) FROM documents").fetchone()[0]
        held: int = connection.execute("SELECT count(*) FROM chunks").fetchone()[0]
        incomplete = connection.execute("SELECT source FROM documents WHERE digest = ''").fetchall()
    problems += [Problem("file without collection", path.name, 1) for path in vectors.stray()]
    stale = tuple(row.name for row in known if row.snapshot and not vectors.file_is_usable(row))
    if deep:
        problems += _deep_problems(database, vectors, known)
    return StoreReport(
        collections=len(known),
        documents=documents,
        chunks=held,
        problems=tuple(problems),
        stale_files=stale,
        incomplete=tuple(row[0] for row in incomplete),
    )


def repair(database: Database, vectors: VectorIndex) -> StoreReport:
    """Put right what can be put right, and return what ``inspect`` finds afterwards."""
    with database.write() as connection:
        _drop_orphans(connection)
        _mend_lexical_tables(connection)
        known = collections.rows(connection)
        for row in known:
            _take_out_broken(connection, row)
            collections.touch(connection, row.id)
            collections.mark_snapshot(connection, row.id, None)
    vectors.sweep()
    for row in known:
        vectors.forget(row.id)
        vectors.save(row.name, always=True)
    return inspect(database, vectors, deep=False)


def _problems(
    connection: sqlite3.Connection, known: list[CollectionRow], *, deep: bool
) -> Iterator[Problem]:
    for (kind, table), sql in _ORPHANS.items():
        yield from _counted(kind, table, len(connection.execute(sql).fetchall()))
    broken = {**_BROKEN, "text that is cut": _CUT_TEXT} if deep else _BROKEN
    for kind, sql in broken.items():
        yield from _counted(kind, "documents", sum(row[1] for row in connection.execute(sql)))
    tables = _lexical_tables(connection)
    ids = {row.id for row in known}
    yield from _counted("lexical index without collection", "lexical", len(tables - ids))
    yield from _counted("collection without lexical index", "lexical", len(ids - tables))
    for row in known:
        if row.id in tables:
            missing = connection.execute(_NO_TOKENS.format(row.id), (row.id,)).fetchall()
            yield from _counted("chunk without tokens", row.name, sum(r[1] for r in missing))
            orphans = connection.execute(_NO_CHUNK.format(row.id)).fetchall()
            yield from _counted("tokens without chunk", row.name, len(orphans))


def _deep_problems(
    database: Database, vectors: VectorIndex, known: list[CollectionRow]
) -> list[Problem]:
    problems: list[Problem] = []
    with database.read() as connection:
        faults = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        if faults != ["ok"]:
            problems += [Problem("damaged page", fault, 1) for fault in faults]
    for row in known:
        if not _lexical_index_is_whole(database, row.id):
            problems.append(Problem("lexical index disagrees with its contents", row.name, 1))
        with vectors.catching_up(row.id), database.read() as connection:
            found = collections.lookup(connection, row.name)
            if found is None or found.id != row.id:
                continue  # deleted meanwhile
            ids, rows = read_rows(connection, found, after=0)
            held = vectors.catch_up(connection, found).contents()
        if not (np.array_equal(ids, held[0]) and np.array_equal(rows, held[1])):
            problems.append(Problem("matrix disagrees with the database", row.name, 1))
    return problems


def _lexical_index_is_whole(database: Database, collection: int) -> bool:
    table = f"lexical_{collection}"
    try:
        with database.write() as connection:  # FTS5 takes the question as an insert
            connection.execute(f"INSERT INTO {table}({table}) VALUES ('integrity-check')")
    except StoreError as error:
        if error.code != "store_damaged":
            raise
        return False
    return True


def _drop_orphans(connection: sqlite3.Connection) -> None:
    for (_, table), sql in _ORPHANS.items():
        key = "rowid" if table == "texts" else "id"
        connection.execute(f"DELETE FROM {table} WHERE {key} IN ({sql})")


def _mend_lexical_tables(connection: sqlite3.Connection) -> None:
    tables = _lexical_tables(connection)
    ids = {row.id for row in collections.rows(connection)}
    for missing in ids - tables:
        lexical.create(connection, missing)
    for stray in tables - ids:
        lexical.drop(connection, stray)
    for collection in ids & tables:
        orphans = connection.execute(_NO_CHUNK.format(collection)).fetchall()
        lexical.remove(connection, collection, [row[0] for row in orphans])


def _take_out_broken(connection: sqlite3.Connection, collection: CollectionRow) -> None:
    broken = {
        row[0]
        for sql in (*_BROKEN.values(), _CUT_TEXT)
        for row in connection.execute(
            f"SELECT b.id FROM ({sql}) b JOIN documents k ON k.id = b.id WHERE k.collection_id = ?",
            (collection.id,),
        )
    }
    broken |= {
        row[0] for row in connection.execute(_NO_TOKENS.format(collection.id), (collection.id,))
    }
    for document in broken:
        chunks.delete(connection, collection.id, document)
        left = texts.read(connection, document)
        texts.delete(connection, document)
        texts.insert(connection, document, left)
        connection.execute(
            "UPDATE documents SET digest = '', characters = ? WHERE id = ?", (len(left), document)
        )


def _lexical_tables(connection: sqlite3.Connection) -> set[int]:
    rows = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL%' "
        "AND name LIKE 'lexical!_%' ESCAPE '!'"
    )
    return {int(name.removeprefix("lexical_")) for (name,) in rows}


def _counted(kind: str, where: str, count: int) -> list[Problem]:
    return [Problem(kind, where, count)] if count else []
