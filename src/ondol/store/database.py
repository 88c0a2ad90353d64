"""One SQLite file: its connections, its single writer, its transactions, its errors.

Owns opening (identity, version, WAL), a bounded pool of reader connections and one writer at a
time. Every ``sqlite3`` error leaves as ``StoreError`` with a remedy, values SQLite cannot hold as
``InvalidInput``. Knows no table but ``PRAGMA``. Thread-safe; other processes may use the same file
(one of them writes at a time).
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ondol.core.clock import Clock
from ondol.core.errors import InvalidInput, StoreError
from ondol.core.private_files import private_file
from ondol.store.migrations import APPLICATION_ID, Migration, in_order, migrate

_MAGIC = b"SQLite format 3\x00"
_RESTORE = "move the file aside and ingest again, or put a backup in its place"

# SQLite primary result code → (our code, what happened, remedy)
_MEANINGS: dict[int, tuple[str, str, str]] = {
    sqlite3.SQLITE_BUSY: (
        "store_busy",
        "another process kept writing to it",
        "wait for the other ondol process to finish, then try again",
    ),
    sqlite3.SQLITE_NOTADB: ("store_damaged", "it is not a SQLite database", _RESTORE),
    sqlite3.SQLITE_CORRUPT: ("store_damaged", "it is damaged", _RESTORE),
    sqlite3.SQLITE_FULL: ("disk_full", "the disk is full", "free disk space, then try again"),
    sqlite3.SQLITE_READONLY: (
        "store_unwritable",
        "it may not be written",
        "give this user write access to the file and its folder, or set ONDOL_HOME",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "store_unwritable",
        "it cannot be opened",
        "give this user write access to the file and its folder, or set ONDOL_HOME",
    ),
    sqlite3.SQLITE_IOERR: ("store_failed", "the disk failed", "check the disk and its mount"),
}


class Database:
    """The SQLite file at ``path``, created with its folder where absent, with the tables of ``migrations``.

    ``busy_seconds`` bounds every wait: for the writer lock, for another process, for a reader.
    Raises ``StoreError`` where the file is damaged, not ours, or newer than this code; such a
    file is left as it was.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        migrations: Iterable[Migration],
        readers: int = 8,
        busy_seconds: float = 30.0,
    ) -> None:
        self.path = path
        self._migrations = in_order(migrations)
        self.clock = clock
        self._busy_seconds = busy_seconds
        self._write_lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(readers)
        self._guard = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._closed = False
        self._writer = self._open()

    @property
    def closed(self) -> bool:
        return self._closed

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Lend a reader connection inside one transaction: all its reads see one moment.

        Not to be nested. Raises ``StoreError`` when no reader comes free within ``busy_seconds``.
        """
        if not self._slots.acquire(timeout=self._busy_seconds):
            raise StoreError(
                f"no reader of {self.path} came free within {self._busy_seconds:g} s",
                hint="send fewer requests at once",
                code="store_busy",
            )
        try:
            with self._translated():
                connection = self._take_reader()
                try:
                    connection.execute("BEGIN")
                    yield connection
                finally:
                    self._give_back(connection)
        finally:
            self._slots.release()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Lend the writer inside ``BEGIN IMMEDIATE``; commit at the end, roll back on any error.

        When this returns, what was written is on disk (``synchronous=FULL``). Raises
        ``StoreError`` when another thread or process keeps writing for ``busy_seconds``.
        """
        if not self._write_lock.acquire(timeout=self._busy_seconds):
            raise StoreError(
                f"{self.path} was being written for {self._busy_seconds:g} s",
                hint="wait for the running ingest to finish, then try again",
                code="store_busy",
            )
        try:
            with self._translated():
                self._refuse_closed()
                connection = self._writer
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
        finally:
            self._write_lock.release()

    def close(self) -> None:
        """Close every connection; waits for a running write. Later calls do nothing."""
        with self._write_lock:
            with self._guard:
                if self._closed:
                    return
                self._closed = True
                idle, self._idle = self._idle, []
            for connection in idle:
                connection.close()
            self._writer.close()

    def _open(self) -> sqlite3.Connection:
        self._refuse_foreign_bytes()
        with self._translated():
            try:
                private_file(self.path)
            except OSError as error:
                raise StoreError(
                    f"{self.path} cannot be made: {error.strerror}",
                    hint="set ONDOL_HOME to a folder this user may write",
                    code="store_unwritable",
                ) from None
            connection = self._connect()
            try:
                self._refuse_foreign_schema(connection)
                self._set_wal(connection)
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("BEGIN IMMEDIATE")
                migrate(connection, self._migrations)
                connection.execute("COMMIT")
            except BaseException:
                connection.close()
                raise
            return connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=self._busy_seconds, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")  # deleted text must not stay in the file
        connection.execute("PRAGMA cache_size = -16000")  # KiB: 16 MB
        return connection

    def _refuse_foreign_bytes(self) -> None:
        try:
            with self.path.open("rb") as file:
                head = file.read(len(_MAGIC))
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(
                f"database {self.path} cannot be read: {error.strerror}",
                hint="give this user access to the file, or set ONDOL_HOME",
                code="store_unwritable",
            ) from None
        if head and head != _MAGIC:
            raise StoreError(
                f"database {self.path}: it is not a SQLite database",
                hint=_RESTORE,
                code="store_damaged",
            )

    def _refuse_foreign_schema(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN")
        application: int = connection.execute("PRAGMA application_id").fetchone()[0]
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        tables: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        connection.execute("COMMIT")
        if application != APPLICATION_ID and (application or tables):
            raise StoreError(
                f"{self.path} is another program's database",
                hint="set ONDOL_HOME to a folder of its own",
                code="store_foreign",
            )
        latest = len(self._migrations)
        if version > latest:
            raise StoreError(
                f"{self.path} has schema version {version}; this Ondol knows up to {latest}",
                hint="upgrade Ondol, or set ONDOL_HOME to another folder",
                code="store_newer",
            )

    def _set_wal(self, connection: sqlite3.Connection) -> None:
        deadline = self.clock.monotonic() + self._busy_seconds
        while True:
            try:
                mode: str = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
                break
            except sqlite3.OperationalError as error:
                # SQLite does not wait by itself when two processes make the file WAL at once.
                if (
                    error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY
                    or self.clock.monotonic() > deadline
                ):
                    raise
                time.sleep(0.01)
        if mode != "wal":
            raise StoreError(
                f"{self.path} cannot use a write-ahead log here (journal mode {mode!r})",
                hint="set ONDOL_HOME to a folder on a local disk",
                code="store_unwritable",
            )

    def _take_reader(self) -> sqlite3.Connection:
        with self._guard:
            self._refuse_closed()
            if self._idle:
                return self._idle.pop()
        connection = self._connect()
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _give_back(self, connection: sqlite3.Connection) -> None:
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        with self._guard:
            if not self._closed and not connection.in_transaction:
                self._idle.append(connection)
                return
        connection.close()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise StoreError(
                f"database {self.path} is closed", hint="open the store again", code="store_closed"
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            number = getattr(error, "sqlite_errorcode", None)
            code, what, hint = _MEANINGS.get(
                (number or 0) & 0xFF,
                ("store_failed", str(error), "run `ondol doctor`; report this with its output"),
            )
            raise StoreError(
                f"database {self.path}: {what} ({error})", hint=hint, code=code
            ) from error
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"a text holds a lone surrogate (U+{ord(error.object[error.start]):04X})",
                hint="send valid Unicode",
            ) from None
        except OverflowError:
            raise InvalidInput(
                "a number does not fit into 64 bits", hint="send a smaller number"
            ) from None
