"""What every vector search must do: exact, approximate in this process, and in PostgreSQL."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.contract.vector_subjects import ABOVE, DIMENSIONS, NAME, Clouds, Copies, Subject

from ondol.app.store_assembly import open_documents
from ondol.core.clock import ManualClock
from ondol.core.errors import InvalidInput, NotFound
from ondol.store.documents import DocumentStore

ROOT = Path(__file__).resolve().parents[2]
KINDS = ["exact", "ann", "pgvector"]
DOCUMENTS = 40
ROWS = DOCUMENTS * Clouds.chunks

Hits = list[tuple[int, float]]


@pytest.fixture(params=KINDS)
def subject(request: pytest.FixtureRequest, tmp_path: Path, copies: Copies) -> Subject:
    """Empty; or with ``DOCUMENTS`` documents for a test that has the ``store`` opened."""
    kind: str = request.param
    if kind == "ann":
        pytest.importorskip("usearch")
    home, server = tmp_path / "home", None
    if kind == "pgvector":
        server = request.getfixturevalue("postgres_server")
    if "store" in request.fixturenames:
        return copies.copy(kind, home, documents=DOCUMENTS, server=server)
    return Subject(kind, home, server.create() if server is not None else "")


@pytest.fixture
def clouds() -> Clouds:
    return Clouds()


@pytest.fixture
def store(subject: Subject) -> Iterator[DocumentStore]:
    with subject.open() as opened:
        opened.refresh_vectors(NAME)
        yield opened


def truth(subject: Subject, queries: np.ndarray, *, limit: int = 10, **options: Any) -> list[Hits]:
    """What the exact scan answers from the same database."""
    with open_documents(subject.home, clock=ManualClock(1_700_000_000.0)) as exact:
        return [exact.search_vectors(NAME, q, limit=limit, **options) for q in queries]


def answers(
    store: DocumentStore, queries: np.ndarray, *, limit: int = 10, **options: Any
) -> list[Hits]:
    return [store.search_vectors(NAME, q, limit=limit, **options) for q in queries]


def recall(found: list[Hits], wanted: list[Hits]) -> float:
    """The share of the wanted hits that were found; the answers must be as long and scored alike."""
    assert [len(hits) for hits in found] == [len(hits) for hits in wanted]
    for hits, best in zip(found, wanted, strict=True):
        assert [s for _, s in hits] == sorted((s for _, s in hits), reverse=True)
        exact = dict(best)
        for chunk, score in hits:
            assert score == pytest.approx(exact.get(chunk, score), abs=1e-9)
    pairs = zip(found, wanted, strict=True)
    same = sum(len({c for c, _ in hits} & {c for c, _ in best}) for hits, best in pairs)
    total = sum(map(len, wanted))
    return same / total if total else 1.0


def test_ten_nearest_are_those_of_the_exact_scan(
    subject: Subject, store: DocumentStore, clouds: Clouds
) -> None:
    queries = clouds.queries(150)
    assert recall(answers(store, queries), truth(subject, queries)) >= 0.98
    state = store.vector_state(NAME)
    assert (state.kind, state.rows) == (subject.kind, ROWS)
    assert state.indexed == (0 if subject.kind == "exact" else ROWS)
    assert state.approximate == (0 if subject.kind == "exact" else len(queries))
    assert state.memory_bytes > 0 or subject.kind == "pgvector"
    assert state.disk_bytes > 0 or subject.kind == "exact"


@pytest.mark.parametrize("limit", [1, 100, ROWS - 1, ROWS, 10 * ROWS])
def test_any_number_of_hits(
    subject: Subject, store: DocumentStore, clouds: Clouds, limit: int
) -> None:
    queries = clouds.queries(5)
    wanted = truth(subject, queries, limit=limit)
    assert recall(answers(store, queries, limit=limit), wanted) >= 0.98


def test_what_is_deleted_is_never_found(
    subject: Subject, store: DocumentStore, clouds: Clouds
) -> None:
    for number in range(12):  # all that lies near the first twelve queries
        (nearest,) = store.search_vectors(NAME, clouds.queries(number + 1)[number], limit=1)
        assert store.chunks(NAME, [nearest[0]])
        store.delete_document(NAME, str(number))
        left = store.search_vectors(NAME, clouds.queries(number + 1)[number], limit=50)
        assert nearest[0] not in {chunk for chunk, _ in left}
        assert len(store.chunks(NAME, [chunk for chunk, _ in left])) == 50
    queries = clouds.queries(40)
    assert recall(answers(store, queries), truth(subject, queries)) >= 0.98
    store.refresh_vectors(NAME)
    assert recall(answers(store, queries), truth(subject, queries)) >= 0.98
    for number in range(12, DOCUMENTS):
        store.delete_document(NAME, str(number))
    assert answers(store, queries) == [[]] * 40


def test_what_is_replaced_is_found_at_once_and_the_old_is_gone(
    subject: Subject, store: DocumentStore, clouds: Clouds
) -> None:
    for number in range(8):
        old = clouds.vectors(number)[3]
        (before,) = store.search_vectors(NAME, old, limit=1)
        assert before[1] > 0.999
        clouds.put(store, number, version=1)
        after = store.search_vectors(NAME, clouds.vectors(number, version=1)[3], limit=1)[0]
        assert after[1] > 0.999
        assert after[0] > before[0]
        assert store.search_vectors(NAME, old, limit=1)[0][1] < 0.99
    queries = clouds.queries(40)
    assert recall(answers(store, queries), truth(subject, queries)) >= 0.98
    store.refresh_vectors(NAME)
    assert recall(answers(store, queries), truth(subject, queries)) >= 0.98
    assert store.check(deep=True).ok


def test_an_index_grows_with_its_collection(subject: Subject, clouds: Clouds) -> None:
    with subject.filled(clouds) as store:
        queries = clouds.queries(20)
        for number in range(2 * ABOVE // clouds.chunks):
            clouds.put(store, number)
            if number % 3 == 0:
                store.refresh_vectors(NAME)
            assert recall(answers(store, queries), truth(subject, queries)) >= 0.98
        assert store.refresh_vectors(NAME).rows == 2 * ABOVE


@pytest.mark.parametrize(
    "filter",
    [
        pytest.param({"number": 7}, id="one document"),
        pytest.param({"number": {"in": [3, 4, 5]}}, id="a set"),
        pytest.param({"number": {"gte": 30}}, id="a range"),
        pytest.param({"half": 1}, id="half"),
        pytest.param({"tenth": {"ne": 0}}, id="nine tenths"),
        pytest.param({"number": {"lt": 39}}, id="nearly all"),
        pytest.param({"half": 1, "number": {"gt": 5}}, id="two conditions"),
        pytest.param({"number": 4711}, id="nothing"),
    ],
)
def test_a_filter_comes_before_the_ranking(
    subject: Subject, store: DocumentStore, clouds: Clouds, filter: dict[str, Any]
) -> None:
    # Each document is a topic of its own: half of the queries lie where nothing passes the filter.
    queries = clouds.queries(40)
    found, wanted = answers(store, queries, filter=filter), truth(subject, queries, filter=filter)
    assert recall(found, wanted) >= 0.98
    passing = truth(subject, queries[:1], limit=ROWS, filter=filter)[0]
    if len(passing) < ABOVE:
        assert [[c for c, _ in hits] for hits in found] == [[c for c, _ in h] for h in wanted]
    assert {c for hits in found for c, _ in hits} <= {c for c, _ in passing}


def test_a_filter_after_deletions_and_additions(
    subject: Subject, store: DocumentStore, clouds: Clouds
) -> None:
    for number in range(1, 30, 3):
        store.delete_document(NAME, str(number))
    for number in range(100, 112):
        clouds.put(store, number)
    queries = clouds.queries(40)
    for filter in ({"half": 1}, {"tenth": {"in": [1, 2]}}, {"number": {"gte": 100}}):
        wanted = truth(subject, queries, filter=filter)
        assert recall(answers(store, queries, filter=filter), wanted) >= 0.98


def test_where_no_neighbour_passes_or_is_left_the_next_are_found(
    subject: Subject, store: DocumentStore, clouds: Clouds
) -> None:
    crowd = [topic + DOCUMENTS * turn for topic in range(3) for turn in range(5)]
    for number in crowd:  # two hundred chunks about each of three topics
        clouds.put(store, number)
    store.refresh_vectors(NAME)
    queries = clouds.queries(3)
    elsewhere = {"number": {"in": list(range(3, DOCUMENTS))}}
    wanted = truth(subject, queries, filter=elsewhere)
    assert recall(answers(store, queries, filter=elsewhere), wanted) >= 0.98
    for number in crowd:
        store.delete_document(NAME, str(number))
    assert recall(answers(store, queries), wanted) >= 0.98


def test_an_empty_collection_has_no_nearest(subject: Subject, clouds: Clouds) -> None:
    with subject.filled(clouds) as store:
        query = clouds.queries(1)[0]
        assert store.search_vectors(NAME, query, limit=5) == []
        assert store.search_vectors(NAME, query, limit=5, filter={"half": 1}) == []
        assert store.refresh_vectors(NAME).rows == 0
        clouds.put(store, 0)
        assert len(store.search_vectors(NAME, query, limit=5)) == 5


def test_nothing_is_found_by_nothing(store: DocumentStore, clouds: Clouds) -> None:
    assert store.search_vectors(NAME, clouds.queries(1)[0], limit=0) == []
    assert store.search_vectors(NAME, np.zeros(DIMENSIONS, np.float32), limit=5) == []


@pytest.mark.parametrize(
    "query",
    [
        np.ones(DIMENSIONS + 1, np.float32),
        np.ones((1, DIMENSIONS), np.float32),
        np.full(DIMENSIONS, np.nan, np.float32),
        np.full(DIMENSIONS, np.inf, np.float32),
    ],
)
def test_a_query_that_does_not_fit_is_refused(store: DocumentStore, query: np.ndarray) -> None:
    with pytest.raises(InvalidInput):
        store.search_vectors(NAME, query, limit=3)
    with pytest.raises(NotFound):
        store.search_vectors("nowhere", query, limit=3)


def test_the_length_of_a_query_plays_no_part(store: DocumentStore, clouds: Clouds) -> None:
    query = clouds.queries(1)[0]
    short = store.search_vectors(NAME, query, limit=10)
    long = store.search_vectors(NAME, query * 1000, limit=10)
    assert [chunk for chunk, _ in long] == [chunk for chunk, _ in short]
    assert [score for _, score in long] == pytest.approx([score for _, score in short])


def test_equal_vectors_tie_by_chunk(subject: Subject, clouds: Clouds) -> None:
    same = np.repeat(clouds.queries(1), 30, axis=0)
    with subject.filled(clouds) as store:
        for number in range(20):
            clouds.put(store, number, vectors=same)
        store.refresh_vectors(NAME)
        found = store.search_vectors(NAME, same[0], limit=700)
    assert [chunk for chunk, _ in found] == sorted(chunk for chunk, _ in found)
    assert len(found) == 600


def test_many_collections_of_several_dimensions(subject: Subject) -> None:
    shapes = {f"c{n}": Clouds(n, dimensions=size) for n, size in enumerate((8, 33, 64, 96, 96))}
    with subject.open() as store:
        for name, clouds in shapes.items():
            store.create_collection(name, embedder="e5", dimensions=clouds.dimensions)
        for number in range(12):
            for name, clouds in shapes.items():
                clouds.put(store, number, collection=name)
        for name, clouds in shapes.items():
            assert store.refresh_vectors(name).rows == 12 * clouds.chunks
            found = store.search_vectors(name, clouds.queries(1)[0], limit=1000)
            assert len({chunk for chunk, _ in found}) == len(found) == 12 * clouds.chunks
            for number in range(12):
                ((chunk, score),) = store.search_vectors(name, clouds.vectors(number)[5], limit=1)
                assert score > 0.999
                assert store.chunks(name, [chunk])[0].document == str(number)


def test_a_deleted_collection_leaves_nothing_to_its_successor(
    subject: Subject, store: DocumentStore, clouds: Clouds
) -> None:
    store.delete_collection(NAME)
    with pytest.raises(NotFound):
        store.search_vectors(NAME, clouds.queries(1)[0], limit=3)
    store.create_collection(NAME, embedder="other", dimensions=DIMENSIONS)
    assert store.search_vectors(NAME, clouds.queries(1)[0], limit=3) == []
    assert not [path for path in (subject.home / "vectors").glob("*")]
    clouds.put(store, 3)
    assert len(store.search_vectors(NAME, clouds.queries(1)[0], limit=100)) == clouds.chunks


def test_opened_again_it_answers_the_same(
    subject: Subject, store: DocumentStore, clouds: Clouds
) -> None:
    queries = clouds.queries(30)
    with store:
        before = answers(store, queries)
    with subject.open() as store:
        assert recall(answers(store, queries), before) >= 0.98
        state = store.refresh_vectors(NAME)
        assert recall(answers(store, queries), before) >= 0.98
        assert state.indexed == (0 if subject.kind == "exact" else ROWS)


def test_it_sees_what_another_one_writes(
    subject: Subject, store: DocumentStore, clouds: Clouds
) -> None:
    with subject.open() as other:
        clouds.put(other, 200)
        ((chunk, score),) = store.search_vectors(NAME, clouds.vectors(200)[1], limit=1)
        assert score > 0.999
        other.delete_document(NAME, "200")
        assert store.search_vectors(NAME, clouds.vectors(200)[1], limit=1)[0][0] != chunk


def test_it_can_be_proven_and_built_again_from_the_database(
    subject: Subject, store: DocumentStore, clouds: Clouds
) -> None:
    with store:
        store.delete_document(NAME, "3")
        clouds.put(store, 5, version=1)
        (proof,) = store.mirror_vectors()
    assert (proof.collection, proof.rows) == (NAME, ROWS - clouds.chunks)
    with Subject("exact", subject.home).open() as exact:
        assert exact.mirror_vectors() == [proof]
    for path in (subject.home / "vectors").iterdir():
        path.unlink()
    queries = clouds.queries(30)
    with subject.open() as store:
        assert store.repair().ok
        assert store.mirror_vectors() == [proof]
        assert recall(answers(store, queries), truth(subject, queries)) >= 0.98


def test_searches_go_on_while_documents_come_and_go(
    subject: Subject, store: DocumentStore, clouds: Clouds
) -> None:
    queries, wrong = clouds.queries(DOCUMENTS), list[object]()
    done = threading.Event()

    def search(first: int) -> None:
        turn = first
        try:
            while not done.is_set():
                turn += 1
                hits = store.search_vectors(NAME, queries[turn % DOCUMENTS], limit=10)
                if len(hits) != 10 or hits[0][1] < 0.5:
                    wrong.append(hits)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=search, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(300, 320):
            clouds.put(store, number)
            store.delete_document(NAME, str(number - 290))
        store.refresh_vectors(NAME)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert recall(answers(store, queries), truth(subject, queries)) >= 0.98


WRITER = """
import sys
from pathlib import Path
from tests.contract.vector_subjects import NAME, Clouds, Subject
kind, home, url, first = sys.argv[1:]
clouds = Clouds()
store = Subject(kind, Path(home), url).filled(clouds)
for number in range(int(first), 100_000):
    clouds.put(store, number)
    if number % 3 == 2:
        store.delete_document(NAME, str(number - 2))
    print(number, flush=True)
    store.refresh_vectors(NAME)
"""


def test_killed_in_mid_write_it_loses_nothing(subject: Subject, clouds: Clouds) -> None:
    done = -1
    for lines in (14, 5):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, subject.kind, str(subject.home), subject.url,
             str(done + 1)],
            stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
        )  # fmt: skip
        assert process.stdout is not None
        printed = [int(process.stdout.readline()) for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        printed += [int(line) for line in process.stdout.read().split()]
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        done = printed[-1]
        with subject.open() as store:
            assert store.check(deep=True).ok
            kept = {int(source.removeprefix("/")) for source in store.digests(NAME)}
            assert {n for n in range(done + 1) if n % 3 or n > done - 2} <= kept
            for number in kept:
                ((_, score),) = store.search_vectors(NAME, clouds.vectors(number)[9], limit=1)
                assert score > 0.999
            gone = set(range(done - 2)) - kept
            for number in gone:
                assert store.search_vectors(NAME, clouds.vectors(number)[9], limit=1)[0][1] < 0.99
            (proof,) = store.mirror_vectors()
            assert proof.rows == len(kept) * clouds.chunks
