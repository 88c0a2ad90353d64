"""Our checker of schemas against the reference implementation, on random schemas and values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ondol.tasks.json_schema import faults_of, fits

NAMES = st.sampled_from(["a", "b", "c"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(-3, 3).map(lambda number: round(number, 1)),
    st.text("ab가한\u0301", max_size=4),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


def bounds(low: str, high: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={low: st.integers(0, 2), high: st.integers(1, 4)})


LEAVES = st.one_of(
    st.sampled_from([{"type": kind} for kind in ("null", "boolean", "string")]),
    st.fixed_dictionaries({"enum": st.lists(SCALARS, min_size=1, max_size=3)}),
    st.fixed_dictionaries({"const": VALUES}),
    bounds("minimum", "maximum").map(lambda found: {"type": "number", **found}),
    bounds("minimum", "maximum").map(lambda found: {"type": ["integer", "null"], **found}),
    bounds("minLength", "maxLength").map(lambda found: {"type": "string", **found}),
    st.sampled_from(["^a", "[가-힣]", "b$"]).map(
        lambda found: {"type": "string", "pattern": found}
    ),
)


def _object(properties: dict[str, Any], closed: bool, required: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name in required],
        **({"additionalProperties": False} if closed else {}),
    }


SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, bounds("minItems", "maxItems")).map(
            lambda found: {"type": "array", "items": found[0], **found[1]}
        ),
        st.builds(
            _object, st.dictionaries(NAMES, inner, max_size=3), st.booleans(), st.lists(NAMES)
        ),
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("pattern", ["^a{2,1}$", "(", "a{0,5000}"])
def test_a_pattern_that_no_generator_takes_is_a_fault(pattern: str) -> None:
    faults = list(faults_of({"type": "string", "pattern": pattern}))

    assert [place for place, _ in faults] == ["/pattern"]


@given(SCHEMAS, VALUES)
def test_a_value_fits_where_the_reference_says_so(schema: dict[str, Any], value: Any) -> None:
    assert list(faults_of(schema)) == []
    assert fits(value, schema) is Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"enum": [1, "a"]}, True, False),
        ({"enum": [1, "a"]}, 1.0, True),
        ({"const": {"a": [0]}}, {"a": [False]}, False),
        ({"type": "integer"}, 2.0, True),
        ({"type": "number"}, True, False),
        ({"type": "string", "maxLength": 1}, "한", True),
    ],
)
def test_numbers_truths_and_letters(schema: dict[str, Any], value: Any, expected: bool) -> None:
    assert fits(value, schema) is Draft202012Validator(schema).is_valid(value) is expected
