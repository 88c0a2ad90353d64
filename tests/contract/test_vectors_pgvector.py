"""What belongs to PostgreSQL alone: its absence, what others do to its rows, proof of a move."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.contract.postgres_server import PostgresServer
from tests.contract.vector_subjects import NAME, Clouds, Subject

from ondol.core.errors import SettingsError, StoreError

pytest.importorskip("pg8000")

from pg8000.native import Connection

DOCUMENTS = 12


def sql(url: str, statement: str) -> list[list[object]]:
    parts = urlsplit(url)
    with Connection(
        parts.username, host=parts.hostname, port=parts.port, database=parts.path[1:]
    ) as connection:
        return list(connection.run(statement) or [])


@pytest.fixture
def subject(tmp_path: Path, postgres_url: str) -> Subject:
    return Subject("pgvector", tmp_path / "home", postgres_url)


@pytest.fixture
def mortal_server(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """The server of all; it may be killed, and runs again for the next test."""
    yield postgres_server
    postgres_server.kill()
    postgres_server.start()


def test_a_server_that_is_gone_is_said_and_coming_back_is_enough(
    tmp_path: Path, mortal_server: PostgresServer
) -> None:
    clouds, subject = Clouds(), Subject("pgvector", tmp_path / "home", mortal_server.create())
    with subject.filled(clouds, documents=DOCUMENTS) as store:
        query = clouds.queries(1)[0]
        before = store.search_vectors(NAME, query, limit=10)
        mortal_server.kill()
        with pytest.raises(StoreError) as error:
            store.search_vectors(NAME, query, limit=10)
        assert error.value.code == "vectors_unavailable"
        clouds.put(store, 50)  # the home does not need it
        store.delete_document(NAME, "50")
        mortal_server.start()
        assert store.search_vectors(NAME, query, limit=10) == before
        (proof,) = store.mirror_vectors()
        assert proof.rows == DOCUMENTS * clouds.chunks
        mortal_server.kill()
        store.delete_collection(NAME)
    with pytest.raises(StoreError):
        subject.open()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param("UPDATE {t} SET vector = (SELECT vector FROM {t} LIMIT 1)", id="changed"),
        pytest.param("DELETE FROM {t} WHERE id % 2 = 0", id="rows gone"),
        pytest.param("TRUNCATE {t}", id="empty"),
        pytest.param("DROP TABLE {t}", id="table gone"),
        pytest.param("INSERT INTO {t} SELECT id + 10000, hash, vector FROM {t}", id="rows more"),
    ],
)
def test_rows_that_someone_else_changed_are_noticed_and_made_again(
    subject: Subject, damage: str
) -> None:
    clouds = Clouds()
    with subject.filled(clouds, documents=DOCUMENTS) as store:
        (proof,) = store.mirror_vectors()
        before = store.search_vectors(NAME, clouds.queries(1)[0], limit=10)
        sql(subject.url, damage.format(t="ondol.vectors_1"))
        assert store.mirror_vectors() == [proof]
        assert store.search_vectors(NAME, clouds.queries(1)[0], limit=10) == before


def test_a_move_keeps_every_bit(subject: Subject) -> None:
    clouds = Clouds()
    with Subject("exact", subject.home).filled(clouds, documents=DOCUMENTS) as store:
        store.create_collection("other", embedder="e5", dimensions=17)
        store.create_collection("empty", embedder="e5", dimensions=3)
        odd = Clouds(5, dimensions=17)
        for number in range(3):
            odd.put(store, number, collection="other")
        proofs = store.mirror_vectors()
    with subject.open() as store:
        assert store.mirror_vectors() == proofs
    assert {proof.collection: proof.rows for proof in proofs} == {
        NAME: DOCUMENTS * clouds.chunks,
        "other": 3 * odd.chunks,
        "empty": 0,
    }
    with Subject("exact", subject.home).open() as store:  # and back: nothing has left the home
        assert store.mirror_vectors() == proofs


def test_two_homes_in_one_schema_never_answer_for_each_other(
    subject: Subject, tmp_path: Path
) -> None:
    one, two = Clouds(seed=1), Clouds(seed=2)
    other = Subject("pgvector", tmp_path / "other", subject.url)
    with (
        subject.filled(one, documents=DOCUMENTS) as first,
        other.filled(two, documents=DOCUMENTS) as second,
    ):
        for number in range(3):
            assert first.search_vectors(NAME, one.vectors(number)[7], limit=1)[0][1] > 0.999
            assert second.search_vectors(NAME, two.vectors(number)[7], limit=1)[0][1] > 0.999
        assert first.mirror_vectors() != second.mirror_vectors()


def test_deleting_a_collection_drops_its_table(subject: Subject) -> None:
    count = "SELECT count(*) FROM pg_tables WHERE schemaname = 'ondol' AND tablename LIKE 'vec%'"
    with subject.filled(Clouds(), documents=2) as store:
        assert sql(subject.url, count) == [[1]]
        store.delete_collection(NAME)
        assert sql(subject.url, count) == [[0]]


@pytest.mark.parametrize(
    "url",
    ["", "ondol.db", "mysql://u@h/d", "postgresql://127.0.0.1/d", "postgresql://u@h:port/d",
     "postgresql://u@h/d?sslmode=prefer"],
)  # fmt: skip
def test_what_is_no_url_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError) as error:
        Subject("pgvector", tmp_path, url).open()
    assert error.value.param == "vectors.postgres_url"
