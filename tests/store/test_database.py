from __future__ import annotations

import sqlite3
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.store.builders import filled, open_store, put

from ondol.app.store_assembly import MIGRATIONS
from ondol.core.clock import SystemClock
from ondol.core.errors import InvalidInput, StoreError
from ondol.store.database import Database


def foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs(x)")
    connection.commit()
    connection.close()


def newer(path: Path) -> None:
    filled(path.parent).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.commit()
    connection.close()


def broken_schema(path: Path) -> None:
    filled(path.parent).close()
    data = bytearray(path.read_bytes())
    data[100:600] = b"\xff" * 500  # the first page's table of cells
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda path: path.write_text("이것은 데이터베이스가 아니다" * 100), "store_damaged"),
        (lambda path: path.write_bytes(b"SQLite format 3\x00" + b"\xff" * 4096), "store_damaged"),
        (lambda path: path.write_bytes(b"x"), "store_damaged"),
        (broken_schema, "store_damaged"),
        (foreign, "store_foreign"),
        (newer, "store_newer"),
        (lambda path: path.mkdir(), "store_unwritable"),
    ],
)
def test_a_file_that_is_not_ours_is_refused_and_left_alone(
    tmp_path: Path, make: Callable[[Path], object], code: str
) -> None:
    path = tmp_path / "ondol.db"
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(StoreError, match="ondol.db") as error:
        open_store(tmp_path)
    assert error.value.code == code
    assert error.value.hint
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_damage_inside_is_reported_with_a_remedy(tmp_path: Path) -> None:
    with filled(tmp_path) as store:
        for number in range(30):
            put(store, f"/{number}", "가나다라" * 200)
    path = tmp_path / "ondol.db"
    data = bytearray(path.read_bytes())
    for page in range(10, len(data) // 4096):
        data[page * 4096 : page * 4096 + 2000] = b"\xff" * 2000
    path.write_bytes(data)
    with pytest.raises(StoreError, match="damaged") as error:
        _read_all(tmp_path, 30)
    assert error.value.code == "store_damaged"
    assert "backup" in error.value.hint


def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    (tmp_path / "ondol.db").touch()
    with filled(tmp_path) as store:
        assert store.check(deep=True).ok


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file") as error:
        open_store(tmp_path / "file" / "home")
    assert "ONDOL_HOME" in error.value.hint


def test_a_new_home_is_closed_to_others(tmp_path: Path) -> None:
    open_store(tmp_path / "home").close()
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


def test_another_process_writing_is_waited_for_then_named(tmp_path: Path) -> None:
    with filled(tmp_path, busy_seconds=0.05) as store:
        put(store, "/a")
        other = sqlite3.connect(tmp_path / "ondol.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError) as error:
            put(store, "/b")
        assert error.value.code == "store_busy"
        assert "wait" in error.value.hint
        assert store.names("c") == {"/a": "a"}  # reading goes on
        other.execute("ROLLBACK")
        other.close()
        assert put(store, "/b") == "added"


def test_a_second_writer_in_the_process_is_bounded(tmp_path: Path) -> None:
    database = Database(
        tmp_path / "d.db", migrations=MIGRATIONS, clock=SystemClock(), busy_seconds=0.05
    )
    with database.write(), pytest.raises(StoreError) as error:
        _in_thread(lambda: database.write().__enter__())
    assert error.value.code == "store_busy"
    database.close()


def test_readers_are_bounded(tmp_path: Path) -> None:
    database = Database(
        tmp_path / "d.db", migrations=MIGRATIONS, clock=SystemClock(), readers=1, busy_seconds=0.05
    )
    with database.read(), pytest.raises(StoreError) as error:
        _in_thread(lambda: database.read().__enter__())
    assert error.value.code == "store_busy"
    with database.read() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    database.close()


def test_a_gap_in_the_migrations_is_told_before_the_file_is_made(tmp_path: Path) -> None:
    without_second = [migration for migration in MIGRATIONS if migration.number != 2]
    for wrong in (without_second, [*MIGRATIONS, MIGRATIONS[0]]):
        with pytest.raises(ValueError, match="each once"):
            Database(tmp_path / "d.db", migrations=wrong, clock=SystemClock())
    assert not (tmp_path / "d.db").exists()


def test_a_failed_write_leaves_nothing_and_the_next_one_works(tmp_path: Path) -> None:
    database = Database(tmp_path / "d.db", migrations=MIGRATIONS, clock=SystemClock())
    with pytest.raises(ZeroDivisionError):
        _write_then_fail(database)
    with database.write() as connection:
        connection.execute("CREATE TABLE t(x)")
    with pytest.raises(StoreError), database.read() as connection:
        connection.execute("INSERT INTO t VALUES (1)")  # readers do not write
    with database.read() as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
    database.close()


def test_values_that_sqlite_cannot_hold_are_the_callers_fault(tmp_path: Path) -> None:
    with filled(tmp_path) as store:
        put(store, "/a")
        with pytest.raises(InvalidInput, match="U\\+D800"):
            store.document("c", "\ud800")
        with pytest.raises(InvalidInput):
            store.collection("\udfff")
        with pytest.raises(InvalidInput):
            store.search_lexical("c", ["\ud800"], limit=3)
        with pytest.raises(InvalidInput, match="64 bits"):
            store.documents("c", limit=2**70)


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.close()
    store.close()
    for call in (store.collections, lambda: put(store, "/a")):
        with pytest.raises(StoreError) as error:
            call()
        assert error.value.code == "store_closed"


def _in_thread(work: Callable[[], object]) -> None:
    """Run ``work`` in another thread and raise here what it raises there."""
    caught: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    for error in caught:
        raise error


def _read_all(home: Path, documents: int) -> None:
    with open_store(home) as store:
        for number in range(documents):
            store.document("c", f"{number}")


def _write_then_fail(database: Database) -> None:
    with database.write() as connection:
        connection.execute("CREATE TABLE t(x)")
        raise ZeroDivisionError
