from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.store.builders import (
    DIMENSIONS,
    cosine,
    filled,
    open_store,
    put,
    stored_vectors,
    units,
)

from ondol.core.errors import InvalidInput
from ondol.store.documents import DocumentStore
from ondol.store.matrix import Matrix

FLOAT32, FLOAT16 = 2**29, 0  # resident_bytes that hold everything as float32, or nothing


def many(store: DocumentStore, documents: int = 12, text: str = "가" * 200) -> None:
    for number in range(documents):
        put(store, f"/{number}", text, seed=number, metadata={"part": number % 3})


def expected(documents: range, query: np.ndarray, per: int = 25) -> list[float]:
    rows = np.concatenate([units(per, number) for number in documents])
    return sorted((cosine(row, query) for row in rows), reverse=True)


@pytest.mark.parametrize("resident", [FLOAT32, FLOAT16])
@pytest.mark.parametrize("limit", [1, 299, 300, 10_000])
def test_the_nearest_are_exact(tmp_path: Path, resident: int, limit: int) -> None:
    query = units(1, 999)[0] * 3  # any length: the score is the cosine
    with filled(tmp_path, resident_bytes=resident) as store:
        many(store)
        found = store.search_vectors("c", query, limit=limit)
    assert len({chunk for chunk, _ in found}) == len(found) == min(limit, 300)
    assert [score for _, score in found] == pytest.approx(expected(range(12), query)[:limit])


def test_float16_and_float32_residents_answer_alike(tmp_path: Path) -> None:
    query = units(1, 7)[0]
    with filled(tmp_path) as store:
        many(store)
        held = store.search_vectors("c", query, limit=50)
    with open_store(tmp_path, resident_bytes=FLOAT16) as store:  # mapped from the file
        assert store.search_vectors("c", query, limit=50) == held
        store.delete_document("c", "3")
        put(store, "/new", "가" * 200, seed=77)
        mapped = store.search_vectors("c", query, limit=50)
    with open_store(tmp_path) as store:
        assert store.search_vectors("c", query, limit=50) == mapped


@pytest.mark.parametrize("resident", [FLOAT32, FLOAT16])
def test_equal_vectors_tie_by_chunk_wherever_they_lie(tmp_path: Path, resident: int) -> None:
    same = np.repeat(units(1, 5), 25, axis=0)
    with filled(tmp_path, resident_bytes=resident) as store:
        for number in range(9):
            put(store, f"/{number}", "가" * 200, vectors=same)
        found = store.search_vectors("c", units(1, 5)[0], limit=100)
    assert [chunk for chunk, _ in found] == sorted(chunk for chunk, _ in found)
    assert len(found) == 100
    assert len({score for _, score in found}) == 1


def test_a_filter_comes_before_the_ranking(tmp_path: Path) -> None:
    query = units(1, 11)[0]
    with filled(tmp_path) as store:
        many(store)
        found = store.search_vectors("c", query, limit=20, filter={"part": 1})
        rows = store.chunks("c", [chunk for chunk, _ in found])
        assert {row.metadata["part"] for row in rows} == {1}
        wanted = expected(range(1, 12, 3), query)[:20]
        assert [score for _, score in found] == pytest.approx(wanted)
        assert store.search_vectors("c", query, limit=20, filter={"part": 9}) == []


@pytest.mark.parametrize(
    "query",
    [
        units(1, dimensions=DIMENSIONS + 1)[0],
        units(1),
        np.full(DIMENSIONS, np.nan, np.float32),
        np.empty(0, np.float32),
    ],
)
def test_a_query_that_does_not_fit_is_refused(tmp_path: Path, query: np.ndarray) -> None:
    with filled(tmp_path) as store, pytest.raises(InvalidInput) as error:
        store.search_vectors("c", query, limit=3)
    assert error.value.param == "query"
    assert "e5" in error.value.hint


def test_nothing_is_found_by_nothing(tmp_path: Path) -> None:
    with filled(tmp_path) as store:
        assert store.search_vectors("c", units(1)[0], limit=5) == []
        put(store, "/a")
        assert store.search_vectors("c", units(1)[0], limit=0) == []
        assert store.search_vectors("c", np.zeros(DIMENSIONS, np.float32), limit=5) == []


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


FAULTS: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "short header": lambda path: path.write_bytes(b"ONDOLF16"),
    "truncated": _truncate,
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\x00"),
    "one byte off": _flip,
    "garbage": lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    "a folder's worth of zeros": lambda path: path.write_bytes(bytes(100_000)),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("resident", [FLOAT32, FLOAT16])
def test_a_faulty_file_changes_no_answer(tmp_path: Path, fault: str, resident: int) -> None:
    with filled(tmp_path) as store:
        many(store, 5)
        truth = stored_vectors(store)
    (file,) = (tmp_path / "vectors").iterdir()
    FAULTS[fault](file)
    with open_store(tmp_path, resident_bytes=resident) as store:
        assert store.check().stale_files == ("c",)
        assert store.check().ok
        assert stored_vectors(store) == truth
        assert store.check(deep=True).ok
    with open_store(tmp_path) as store:
        assert stored_vectors(store) == truth
        assert store.repair().stale_files == ()


def test_a_file_of_another_time_changes_no_answer(tmp_path: Path) -> None:
    with filled(tmp_path) as store:
        many(store, 5)
    (file,) = (tmp_path / "vectors").iterdir()
    older = file.read_bytes()
    with open_store(tmp_path) as store:
        many(store, 8)
        put(store, "/0", "나" * 100, seed=123)
        truth = stored_vectors(store)
    assert file.read_bytes() != older
    file.write_bytes(older)  # as a half-restored backup would leave it
    with open_store(tmp_path) as store:
        assert stored_vectors(store) == truth
        assert store.check(deep=True).ok


def test_a_file_of_another_database_changes_no_answer(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 50)):
        with filled(tmp_path / name) as store:
            put(store, "/a", "가" * 200, seed=seed)
    (foreign,) = (tmp_path / "one" / "vectors").iterdir()
    (file,) = (tmp_path / "two" / "vectors").iterdir()
    with open_store(tmp_path / "two") as store:
        truth = stored_vectors(store)
    file.write_bytes(foreign.read_bytes())
    with open_store(tmp_path / "two") as store:
        assert stored_vectors(store) == truth


def test_a_file_behind_the_database_is_caught_up(tmp_path: Path) -> None:
    with filled(tmp_path) as store:
        many(store, 15)
    (file,) = (tmp_path / "vectors").iterdir()
    saved = file.read_bytes()
    with open_store(tmp_path) as store:
        put(store, "/new", "나" * 30, seed=123)
        store.delete_document("c", "7")
        truth = stored_vectors(store)
    assert file.read_bytes() == saved  # too small a change to write it again
    with open_store(tmp_path) as store:
        assert store.check().stale_files == ()
        assert stored_vectors(store) == truth
        assert store.check(deep=True).ok


def test_files_without_collection_are_swept_at_opening(tmp_path: Path) -> None:
    with filled(tmp_path) as store:
        put(store, "/a")
    stray = [tmp_path / "vectors" / name for name in ("99.f16", "1.f16.999999999.tmp", "notes")]
    for path in stray:
        path.write_bytes(b"x")
    with open_store(tmp_path) as store:
        assert not any(path.exists() for path in stray)
        assert store.check().ok
        stray[0].write_bytes(b"x")
        assert [problem.kind for problem in store.check().problems] == ["file without collection"]
        assert store.repair().ok


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.sets(st.integers(1, 60))), max_size=12))
def test_a_matrix_is_the_rows_appended_less_those_dropped(
    steps: list[tuple[int, set[int]]],
) -> None:
    matrix, model, last = Matrix(dimensions=4), dict[int, np.ndarray](), 0
    for count, dropped in steps:
        rows = units(count, last, 4).astype(np.float16)
        ids = np.arange(last + 1, last + 1 + count, dtype=np.int64)
        earlier, contents = matrix, matrix.contents()
        matrix = matrix.appended(ids, rows, dtype=np.dtype(np.float32))
        model |= {int(i): row for i, row in zip(ids, rows, strict=True)}
        model = {i: row for i, row in model.items() if i not in dropped}
        matrix = matrix.keeping(np.array(sorted(model), np.int64))
        last += count
        # What a running search holds does not move.
        assert np.array_equal(earlier.contents()[0], contents[0])
        assert np.array_equal(earlier.contents()[1], contents[1])
    ids, held = matrix.contents()
    assert ids.tolist() == sorted(model)
    assert all(np.array_equal(row, model[int(i)]) for i, row in zip(ids, held, strict=True))
    query = units(1, 3, 4)[0]
    best = sorted((-cosine(row, query), i) for i, row in model.items())[:5]
    found = matrix.nearest(query, limit=5)
    assert [i for i, _ in found] == [i for _, i in best]
    assert [score for _, score in found] == pytest.approx([-score for score, _ in best])
