"""What belongs to the graph alone: its file, its building, its decay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.contract.vector_subjects import ABOVE, NAME, Clouds, Copies, Subject

from ondol.app.store_assembly import open_documents
from ondol.core.clock import ManualClock
from ondol.store.documents import DocumentStore

pytest.importorskip("usearch")

from ondol.store.ann_graph import SLICE, Graph

DOCUMENTS = 20
ROWS = DOCUMENTS * Clouds.chunks
HALF = ABOVE // 2 // Clouds.chunks


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    return Subject("ann", tmp_path / "home")


@pytest.fixture
def clouds() -> Clouds:
    return Clouds()


@pytest.fixture
def filled(copies: Copies, tmp_path: Path) -> Subject:
    """What ``subject`` is with its documents and its graph stored, and closed."""
    return copies.copy("ann", tmp_path / "home", documents=DOCUMENTS)


@pytest.fixture
def store(filled: Subject) -> Iterator[DocumentStore]:
    with filled.open() as opened:
        opened.refresh_vectors(NAME)
        yield opened


def recall(subject: Subject, store: DocumentStore, clouds: Clouds) -> float:
    queries = clouds.queries(40)
    with open_documents(subject.home, clock=ManualClock(1_700_000_000.0)) as exact:
        wanted = [{c for c, _ in exact.search_vectors(NAME, q, limit=10)} for q in queries]
    found = [{c for c, _ in store.search_vectors(NAME, q, limit=10)} for q in queries]
    return sum(len(f & w) for f, w in zip(found, wanted, strict=True)) / sum(map(len, wanted))


def graph_file(subject: Subject) -> Path:
    (path,) = (subject.home / "vectors").glob("*.hnsw")
    return path


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def _other_version(path: Path) -> None:
    data = bytearray(path.read_bytes())
    assert data[36:43] == b"usearch"
    data[44:47] = b"0.0"
    path.write_bytes(data)


FAULTS: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "short header": lambda path: path.write_bytes(b"ONDOLANN"),
    "truncated": _truncate,
    "one byte off": _flip,
    "of another version of the library": _other_version,
    "garbage": lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_file_is_noticed_and_replaced(filled: Subject, clouds: Clouds, fault: str) -> None:
    path = graph_file(filled)
    whole = path.stat().st_size
    FAULTS[fault](path)
    with filled.open() as store:
        assert recall(filled, store, clouds) >= 0.98
        assert store.refresh_vectors(NAME).indexed == ROWS
        assert recall(filled, store, clouds) >= 0.98
    assert path.stat().st_size == whole


def test_a_whole_file_is_read_not_built_again(filled: Subject, clouds: Clouds) -> None:
    path = graph_file(filled)
    before = path.stat().st_mtime_ns, path.stat().st_ino
    with filled.open() as store:
        assert store.refresh_vectors(NAME).indexed == ROWS
        assert recall(filled, store, clouds) >= 0.98
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_the_graph_of_another_home_is_noticed(
    filled: Subject, clouds: Clouds, tmp_path: Path
) -> None:
    other = Subject("ann", tmp_path / "other")
    other.filled(Clouds(seed=99), documents=DOCUMENTS).close()  # the same ids, other vectors
    path = graph_file(filled)
    path.write_bytes(graph_file(other).read_bytes())
    with filled.open() as store:
        store.refresh_vectors(NAME)
        assert recall(filled, store, clouds) >= 0.98
    assert path.read_bytes() != graph_file(other).read_bytes()


def test_a_file_behind_the_database_is_caught_up(filled: Subject, clouds: Clouds) -> None:
    old = graph_file(filled).read_bytes()
    with filled.open() as store:
        clouds.put(store, 100)
        store.delete_document(NAME, "3")
        clouds.put(store, 4, version=1)
    graph_file(filled).write_bytes(old)
    with filled.open() as store:
        assert store.refresh_vectors(NAME).indexed == ROWS
        assert recall(filled, store, clouds) >= 0.98
        found = store.search_vectors(NAME, clouds.vectors(100)[0], limit=1)
        assert found[0][1] > 0.999


def test_a_search_has_the_graph_built_in_the_background(subject: Subject, clouds: Clouds) -> None:
    with subject.open() as store:
        store.create_collection(NAME, embedder="e5", dimensions=clouds.dimensions)
        for number in range(DOCUMENTS):
            clouds.put(store, number)
        assert store.vector_state(NAME).kind == "exact"
        while store.vector_state(NAME).kind == "exact":  # bounded by the test's time-out
            assert len(store.search_vectors(NAME, clouds.queries(1)[0], limit=10)) == 10
        assert recall(subject, store, clouds) >= 0.98


def test_a_small_collection_has_no_graph(subject: Subject, clouds: Clouds) -> None:
    with subject.filled(clouds, documents=HALF) as store:
        assert store.vector_state(NAME).kind == "exact"
    assert not list((subject.home / "vectors").glob("*.hnsw"))


def test_it_says_what_memory_it_takes(filled: Subject, store: DocumentStore) -> None:
    with Subject("exact", filled.home).open() as exact:
        plain = exact.vector_state(NAME)
    state = store.vector_state(NAME)
    # int8 values and the links at the least, with ids and hashes.
    assert state.memory_bytes >= plain.memory_bytes + ROWS * (96 + 16)
    assert state.disk_bytes >= plain.disk_bytes + graph_file(filled).stat().st_size


def test_a_graph_mostly_of_deleted_rows_is_built_again(
    filled: Subject, store: DocumentStore, clouds: Clouds
) -> None:
    before = graph_file(filled).stat().st_size
    for number in range(20):
        clouds.put(store, number, version=1)
    assert store.refresh_vectors(NAME).indexed == ROWS
    assert recall(filled, store, clouds) >= 0.98
    store.close()
    # Forty documents went through it; with the first twenty left in, it would be twice as large.
    assert graph_file(filled).stat().st_size < 1.3 * before


def test_a_file_without_collection_is_swept(filled: Subject, store: DocumentStore) -> None:
    store.close()
    stray = filled.home / "vectors" / "99.hnsw"
    stray.write_bytes(b"x")
    with filled.open() as again:
        assert not stray.exists()
        assert graph_file(filled).exists()
        assert again.check().ok


def test_rows_are_added_in_turns_and_all_are_found() -> None:
    clouds = Clouds()
    rows = clouds.near(0, 5 * SLICE + 3, seed=1)
    ids = np.arange(10, 10 + len(rows), dtype=np.int64)
    graph = Graph(clouds.dimensions)
    assert graph.add([(ids[:20], rows[:20]), (ids[20:], rows[20:])])
    assert (len(graph), graph.last, graph.unsaved) == (len(rows), ids[-1], len(rows))
    assert np.array_equal(graph.candidates(rows[0], 10_000), ids)
    again = Graph(clouds.dimensions, file=graph.file())
    assert np.array_equal(again.candidates(rows[0], 10_000), ids)
    assert again.unsaved == 0


def test_rows_that_come_topic_by_topic_are_all_found() -> None:
    # In that order a plain HNSW graph loses one row in twelve for good, however long it searches.
    clouds = Clouds(dimensions=384, topics=60)
    rows = np.concatenate([clouds.near(topic, 100, seed=topic) for topic in range(60)])
    ids = np.arange(1, len(rows) + 1, dtype=np.int64)
    graph = Graph(384)
    assert graph.add([(ids, rows)])
    found = 0
    for query in clouds.queries(60):
        nearest = ids[np.argsort(-(rows @ query))[:10]]
        found += len(np.intersect1d(nearest, graph.candidates(query, 94)))
    assert found >= 0.99 * 600


def test_adding_that_is_stopped_says_so() -> None:
    clouds = Clouds()
    rows = clouds.near(0, 100, seed=1)
    stops = iter([False, False, True])
    graph = Graph(clouds.dimensions)
    assert not graph.add([(np.arange(1, 101), rows)], stopped=lambda: next(stops))
    assert len(graph) == 0


steps = st.lists(st.tuples(st.sampled_from("pdrs"), st.integers(0, 17)), max_size=15)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps)
def test_after_any_history_it_answers_as_the_exact_scan(
    copies: Copies, tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, int]]
) -> None:
    home, clouds = tmp_path_factory.mktemp("history") / "home", Clouds()
    subject = copies.copy("ann", home, documents=12)
    store = subject.open()
    store.refresh_vectors(NAME)
    for at, (step, number) in enumerate(history):
        if step == "p":
            clouds.put(store, number, version=at)
        elif step == "d" and f"/{number}" in store.digests(NAME):
            store.delete_document(NAME, str(number))
        elif step == "r":
            store.refresh_vectors(NAME)
        elif step == "s":
            store.close()
            store = subject.open()
    assert recall(subject, store, clouds) >= 0.98
    store.close()
