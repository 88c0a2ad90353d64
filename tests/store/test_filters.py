from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.store.builders import filled, put

from ondol.core.errors import InvalidInput
from ondol.store.documents import DocumentStore
from ondol.store.filters import MAX_CONDITIONS, MAX_SET, OPERATORS

ROWS: dict[str, dict[str, Any]] = {
    "a": {"law": "민법", "rating": 4, "flag": True, "date": "2024-01-02", "o'clock": "x"},
    "b": {"law": "형법", "rating": 4.5, "flag": False, "a.b": 1, "날짜 (일)": 2},
    "c": {"law": "민법", "rating": "4", "none": None, "list": ["민법"]},
    "d": {"law": 5, "rating": 1, "flag": 1},
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DocumentStore]:
    with filled(tmp_path) as store:
        for name, metadata in ROWS.items():
            put(store, f"/{name}", "가", tokens=["말"], metadata=metadata)
        yield store


def names(store: DocumentStore, filter: dict[Any, Any] | None) -> str:
    found = store.search_lexical("c", ["말"], limit=99, filter=filter)
    return "".join(sorted(r.document for r in store.chunks("c", [c for c, _ in found])))


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        (None, "abcd"),
        ({}, "abcd"),
        ({"law": "민법"}, "ac"),
        ({"law": {"eq": "민법"}, "rating": 4}, "a"),
        ({"law": {"ne": "민법"}}, "bd"),
        ({"rating": {"gte": 4}}, "ab"),
        ({"rating": {"gt": 4, "lt": 5}}, "b"),
        ({"rating": {"lte": 4.0}}, "ad"),
        ({"rating": "4"}, "c"),
        ({"rating": {"in": [4, "4"]}}, "ac"),
        ({"law": {"in": ["형법", 5]}}, "bd"),
        ({"law": {"in": []}}, ""),
        ({"date": {"gte": "2024-01-01", "lt": "2024-02-01"}}, "a"),
        ({"flag": True}, "a"),
        ({"flag": False}, "b"),
        ({"flag": 1}, "d"),
        ({"flag": {"ne": True}}, "bcd"),
        ({"none": None}, "abcd"),
        ({"law": None}, ""),
        ({"none": {"exists": True}}, "c"),
        ({"flag": {"exists": False}}, "c"),
        ({"o'clock": "x"}, "a"),
        ({"a.b": 1}, "b"),
        ({"날짜 (일)": 2}, "b"),
        ({"') OR 1=1 --": 1}, ""),
        ({"law": "' OR '1'='1"}, ""),
        ({"missing": "x"}, ""),
    ],
)
def test_what_a_filter_lets_through(
    store: DocumentStore, filter: dict[str, Any] | None, found: str
) -> None:
    assert names(store, filter) == found


@pytest.mark.parametrize(
    "filter",
    [
        {"a": {}},
        {"a": [1]},
        {"a": {"gte": None}},
        {"a": {"gte": True}},
        {"a": {"in": "abc"}},
        {"a": {"in": [None]}},
        {"a": {"in": [True]}},
        {"a": {"in": [[1]]}},
        {"a": {"in": list(range(MAX_SET + 1))}},
        {"a": {"exists": 1}},
        {"a": float("nan")},
        {"a": 2**63},
        {"a": "\ud800"},
        {"\ud800": "a"},
        {"": 1},
        {'a"b': 1},
        {1: 1},
        {str(n): n for n in range(MAX_CONDITIONS + 1)},
        ["a"],
    ],
)
def test_filters_that_are_refused(store: DocumentStore, filter: Any) -> None:
    with pytest.raises(InvalidInput) as error:
        names(store, filter)
    assert error.value.hint


def test_an_unknown_operator_is_answered_with_the_known_ones(store: DocumentStore) -> None:
    with pytest.raises(InvalidInput, match="'like'") as error:
        names(store, {"law": {"like": "민%"}})
    assert all(operator in error.value.hint for operator in OPERATORS)
    assert error.value.param == "filter.law"
