"""Schemas as grammars of JSON without blanks: what is said, exactly, and what is left to others.

A grammar is read here as a regular expression, rule by rule; so what it admits can be asked of it.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ondol.backends.json_grammar import grammar_of

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|r\d+|[|()]|[*+?]|\{\d+,?\d*\}|\s+')


def admits(grammar: str, text: str) -> bool:
    """Whether ``text`` belongs to the language of ``grammar``."""
    rules = dict(line.split(" ::= ", 1) for line in grammar.splitlines())
    return re.fullmatch(_read("root", rules), text) is not None


def _read(name: str, rules: dict[str, str]) -> str:
    made = []
    tokens = _TOKEN.findall(rules[name])
    assert "".join(tokens) == rules[name]
    for token in tokens:
        if token.startswith('"'):
            literal = re.sub(r"\\(.)", r"\1", token[1:-1])
            made.append(f"(?:{re.escape(literal)})")
        elif re.fullmatch(r"r\d+", token):
            made.append(f"(?:{_read(token, rules)})")
        else:
            made.append(token.strip())
    return f"(?:{''.join(made)})"


def grammar(schema: dict[str, Any]) -> str:
    found = grammar_of(schema)
    assert found is not None
    return found


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


SUMMARY = {
    "type": "object",
    "properties": {
        "맛": {
            "type": "object",
            "properties": {
                "text": {"type": "string", "pattern": "^[가-힣A-Z']+[.,!?]?( [가-힣A-Z']+){0,3}$"},
                "evidence": {
                    "type": "array",
                    "items": {"type": "string", "enum": ["r1", "r20"]},
                    "minItems": 1,
                    "maxItems": 2,
                },
            },
            "required": ["text", "evidence"],
            "additionalProperties": False,
        },
        "note": {"type": ["string", "null"], "maxLength": 5},
        "sure": {"type": "boolean"},
    },
    "required": ["맛", "sure"],
    "additionalProperties": False,
}
TASTE = {"text": "국물이 맛있어요", "evidence": ["r1"]}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"맛": TASTE, "sure": True}, True),
        ({"맛": TASTE, "note": None, "sure": False}, True),
        ({"맛": TASTE, "note": '"\\\n가', "sure": False}, True),
        ({"맛": {**TASTE, "evidence": ["r20", "r1"]}, "sure": True}, True),
        ({"맛": {**TASTE, "evidence": []}, "sure": True}, False),
        ({"맛": {**TASTE, "evidence": ["r2"]}, "sure": True}, False),
        ({"맛": {**TASTE, "text": "국물이: 맛있어요"}, "sure": True}, False),
        ({"맛": {**TASTE, "text": "하나 둘 셋 넷 다섯"}, "sure": True}, False),
        ({"맛": TASTE, "note": "abcdef", "sure": True}, False),
        ({"맛": TASTE}, False),
        ({"sure": True}, False),
        ({"맛": TASTE, "sure": 1}, False),
        ({"맛": TASTE, "sure": True, "more": 1}, False),
    ],
)
def test_a_grammar_admits_what_fits(value: Any, expected: bool) -> None:
    assert Draft202012Validator(SUMMARY).is_valid(value) is expected
    assert admits(grammar(SUMMARY), compact(value)) is expected


def test_no_blank_is_admitted_between_the_parts() -> None:
    found = grammar(SUMMARY)
    assert admits(found, compact({"맛": TASTE, "sure": True}))
    assert not admits(found, json.dumps({"맛": TASTE, "sure": True}, ensure_ascii=False))
    assert not admits(found, compact({"sure": True, "맛": TASTE}))


NAMES = st.sampled_from(["a", "b", 'q"', "가"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-99, 99),
    st.floats(-9, 9).map(lambda number: round(number, 2)),
    st.text('a"\\\n가한', max_size=4),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
LEAVES = st.one_of(
    st.sampled_from(
        [
            *({"type": kind} for kind in ("null", "boolean", "integer", "number", "string")),
            {"type": ["integer", "null"]},
            {"type": "string", "minLength": 1, "maxLength": 3},
        ]
    ),
    st.fixed_dictionaries(
        {"enum": st.lists(st.text('a"\\가', max_size=3), min_size=1, max_size=3)}
    ),
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(
            lambda items, least, more: {
                "type": "array",
                "items": items,
                "minItems": least,
                **({"maxItems": least + more} if more is not None else {}),
            },
            inner,
            st.integers(0, 2),
            st.none() | st.integers(0, 2),
        ),
        st.builds(
            lambda properties, required: {
                "type": "object",
                "properties": properties,
                "required": [name for name in properties if name in required],
                "additionalProperties": False,
            },
            st.dictionaries(NAMES, inner, max_size=3),
            st.lists(NAMES),
        ),
    ),
    max_leaves=5,
)


def _ordered(value: Any, schema: dict[str, Any]) -> Any:
    """Return ``value`` with the properties of its objects in the order of ``schema``."""
    if isinstance(value, dict) and "properties" in schema:
        inner = schema["properties"]
        return {
            name: _ordered(value[name], inner.get(name, {}))
            for name in sorted(value, key=lambda one: list(inner).index(one) if one in inner else 9)
        }
    if isinstance(value, list) and "items" in schema:
        return [_ordered(one, schema["items"]) for one in value]
    return value


@settings(deadline=None)
@given(SCHEMAS, st.data())
def test_a_grammar_admits_exactly_what_the_reference_accepts(
    schema: dict[str, Any], data: st.DataObject
) -> None:
    value = data.draw(st.one_of(_fitting(schema), VALUES))
    expected = Draft202012Validator(schema).is_valid(value)
    if isinstance(value, float) and value.is_integer():
        return  # 2.0 is an integer to the reference, and written with a point
    if "." in compact(value):
        return
    assert admits(grammar(schema), compact(_ordered(value, schema))) is expected


def _fitting(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Draw values that look like ``schema``; most fit."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema["type"][0] if isinstance(schema["type"], list) else schema["type"]
    if kind == "object":
        required = {name: _fitting(schema["properties"][name]) for name in schema["required"]}
        others = {k: _fitting(v) for k, v in schema["properties"].items() if k not in required}
        return st.fixed_dictionaries(required, optional=others)
    if kind == "array":
        return st.lists(_fitting(schema["items"]), min_size=schema["minItems"], max_size=3)
    plain: dict[str, st.SearchStrategy[Any]] = {
        "string": st.text('a"\\\n가', max_size=3),
        "integer": st.integers(-99, 99),
        "number": st.integers(-99, 99),
        "boolean": st.booleans(),
        "null": st.none(),
    }
    return plain[kind]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "null"}}},  # open: anything may come
        {"type": "object", "additionalProperties": False, "required": ["a"]},
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": "a"},
        {"type": "string", "pattern": "^a.b$"},
        {"type": "string", "pattern": "^[^가]$"},
        {"type": "string", "pattern": "^(?=a)b$"},
        {"type": "string", "pattern": "^(a$"},
        {"type": "string", "pattern": "^a)b$"},
        {"type": "string", "pattern": "^a+?$"},
        {"type": "string", "pattern": '^"$'},
        {"type": "string", "format": "date"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "null"}}},
        {"anyOf": [{"type": "null"}]},
        {"type": "array"},
        {"enum": []},
        {"type": "objekt"},
        {},
    ],
)
def test_what_cannot_be_said_exactly_has_no_grammar(schema: dict[str, Any]) -> None:
    assert grammar_of(schema) is None


@pytest.mark.parametrize(
    ("pattern", "fitting", "other"),
    [
        (r"^\d{4}-\d{2}$", "2024-03", "2024-3"),
        ("^(?:ab|c)*$", "abcab", "abb"),
        (r"^제\d{1,3}조(의\d)?$", "제12조의2", "12조"),
        (r"^[a-z]+(\.[a-z]+)?$", "a.b", "a."),
    ],
)
def test_plain_patterns_are_read(pattern: str, fitting: str, other: str) -> None:
    found = grammar({"type": "string", "pattern": pattern})
    assert admits(found, json.dumps(fitting, ensure_ascii=False))
    assert not admits(found, json.dumps(other, ensure_ascii=False))
