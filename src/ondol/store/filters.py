"""Metadata filters: a small mapping compiled to SQL over the documents of a collection.

``{"law": "민법"}`` is equality, ``{"rating": {"gte": 4, "lt": 5}}`` a range, ``{"id": {"in":
["a", "b"]}}`` a set; all conditions must hold. Keys name top-level metadata. Keys and values are
bound parameters, never SQL text. A value is compared only with values of its own kind.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.core.errors import InvalidInput
from ondol.store.collection_names import near

_RANGES = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
OPERATORS = ("eq", "ne", "in", "exists", *_RANGES)
MAX_CONDITIONS = 32
MAX_SET = 10_000
_INT64 = 2**63


@dataclass(frozen=True, slots=True)
class FilterCondition:
    """A WHERE clause over ``documents AS d`` with its parameters."""

    sql: str
    parameters: tuple[Any, ...]


def compile_filter(filter: Mapping[str, Any] | None) -> FilterCondition | None:
    """Return the filter as SQL, or ``None`` where there is nothing to filter by.

    Raises ``InvalidInput`` for an unknown operator, a value of a kind that cannot be compared, or
    more than ``MAX_CONDITIONS`` conditions.
    """
    if filter is None:
        return None
    if not isinstance(filter, Mapping):
        raise _invalid(f"filter is a {type(filter).__name__}; it must be an object", "")
    clauses: list[FilterCondition] = []
    for key, wanted in filter.items():
        path = _path(key)
        tests = wanted if isinstance(wanted, Mapping) else {"eq": wanted}
        if not tests:
            raise _invalid(f"filter on {key!r} has no condition", key)
        clauses += [_clause(key, path, operator, value) for operator, value in tests.items()]
    if len(clauses) > MAX_CONDITIONS:
        raise _invalid(f"filter has {len(clauses)} conditions; at most {MAX_CONDITIONS}", "")
    if not clauses:
        return None
    return FilterCondition(
        sql=" AND ".join(f"({clause.sql})" for clause in clauses),
        parameters=tuple(value for clause in clauses for value in clause.parameters),
    )


def candidates(
    connection: sqlite3.Connection, collection: int, condition: FilterCondition
) -> NDArray[np.int64]:
    """Return the ids, ascending, of the chunks whose document meets the condition."""
    rows = connection.execute(candidate_sql(condition), (collection, *condition.parameters))
    found = np.fromiter((row[0] for row in rows), dtype=np.int64)
    found.sort()
    return found


def candidate_sql(condition: FilterCondition) -> str:
    """Return the SELECT of those chunk ids; its parameters are the collection id, then the
    condition's."""
    return (
        "SELECT c.id FROM documents d JOIN chunks c ON c.document_id = d.id "
        f"WHERE d.collection_id = ? AND {condition.sql}"
    )


def _path(key: object) -> str:
    if not isinstance(key, str) or not key or '"' in key:
        raise _invalid(f"filter key {key!r}: a non-empty string without quotation marks", key)
    return f'$."{key}"'


def _clause(key: str, path: str, operator: str, value: Any) -> FilterCondition:
    if operator in ("eq", "ne"):
        equal = _equals(key, path, value)
        return (
            equal if operator == "eq" else FilterCondition(f"NOT ({equal.sql})", equal.parameters)
        )
    if operator == "in":
        return _member(key, path, value)
    if operator == "exists":
        if not isinstance(value, bool):
            raise _invalid(f"filter {key!r} exists {value!r}: it must be true or false", key)
        word = "IS NOT NULL" if value else "IS NULL"
        return FilterCondition(f"json_type(d.metadata, ?) {word}", (path,))
    if operator in _RANGES:
        return _range(key, path, operator, value)
    raise InvalidInput(
        f"filter on {key!r} has unknown operator {operator!r}",
        hint=f"known operators: {', '.join(OPERATORS)}; {near(str(operator), OPERATORS)}",
        param=f"filter.{key}",
    )


def _equals(key: str, path: str, value: Any) -> FilterCondition:
    if value is None:
        return FilterCondition("coalesce(json_type(d.metadata, ?), 'null') = 'null'", (path,))
    if isinstance(value, bool):
        return FilterCondition(
            "coalesce(json_type(d.metadata, ?), '') = ?", (path, "true" if value else "false")
        )
    kind = _kind(key, value)
    return FilterCondition(
        f"coalesce(json_type(d.metadata, ?) IN ({kind}) AND json_extract(d.metadata, ?) = ?, 0)",
        (path, path, value),
    )


def _range(key: str, path: str, operator: str, value: Any) -> FilterCondition:
    if isinstance(value, bool):
        raise _invalid(f"filter {key!r} {operator} {value!r}: a number or a string", key)
    kind = _kind(key, value)
    return FilterCondition(
        f"json_type(d.metadata, ?) IN ({kind}) "
        f"AND json_extract(d.metadata, ?) {_RANGES[operator]} ?",
        (path, path, value),
    )


def _member(key: str, path: str, values: Any) -> FilterCondition:
    if isinstance(values, str) or not isinstance(values, (list, tuple, set, frozenset)):
        raise _invalid(f"filter {key!r} in {values!r}: it must be a list", key)
    if len(values) > MAX_SET:
        raise _invalid(f"filter {key!r} in: {len(values)} values; at most {MAX_SET}", key)
    strings = [value for value in values if isinstance(value, str)]
    numbers = [value for value in values if not isinstance(value, str)]
    for value in values:
        if isinstance(value, bool):
            raise _invalid(f"filter {key!r} in: {value!r} is no number and no string", key)
        _kind(key, value)
    tests = [
        f"json_type(d.metadata, ?) IN ({kind}) "
        "AND json_extract(d.metadata, ?) IN (SELECT value FROM json_each(?))"
        for kind in ("'text'", "'integer', 'real'")
    ]
    parameters = (path, path, json.dumps(strings), path, path, json.dumps(numbers))
    return FilterCondition(" OR ".join(f"({test})" for test in tests), parameters)


def _kind(key: str, value: Any) -> str:
    """Return the JSON types a value may equal, as an SQL list; refuse what JSON has no scalar for."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _invalid(f"filter on {key!r}: the text holds a lone surrogate", key) from None
        return "'text'"
    if isinstance(value, int) and -_INT64 <= value < _INT64:
        return "'integer', 'real'"
    if isinstance(value, float) and math.isfinite(value):
        return "'integer', 'real'"
    raise _invalid(f"filter on {key!r}: {value!r} is no string, finite number or boolean", key)


def _invalid(message: str, key: object) -> InvalidInput:
    return InvalidInput(
        message,
        hint='for example {"law": "민법"}, {"rating": {"gte": 4}}, {"id": {"in": ["a", "b"]}}',
        param=f"filter.{key}" if key else "filter",
    )
