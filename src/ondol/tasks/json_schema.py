"""The part of JSON Schema that packs may use, and whether a value fits it.

Small on purpose: every keyword here is one that generators obey too, so that what is asked of them is
what is checked. ``faults_of`` finds what a schema says that we do not know; ``misfits`` where a value
strays. Linear in both; knows no pack.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ondol.core.patterns import pattern_fault

TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_COMMON = ("type", "title", "description", "enum", "const", "default")
KEYWORDS: dict[str, tuple[str, ...]] = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "minItems", "maxItems"),
    "string": ("minLength", "maxLength", "pattern"),
    "number": ("minimum", "maximum"),
    "integer": ("minimum", "maximum"),
}
_KNOWN = frozenset([*_COMMON, *(word for words in KEYWORDS.values() for word in words)])
_MOST_DEPTH = 16
_SHOWN = 5


def faults_of(schema: Any, *, at: str = "") -> Iterator[tuple[str, str]]:
    """Yield (place, rule broken) for everything in ``schema`` that is not of our part."""
    if at.count("/") > 2 * _MOST_DEPTH:
        yield at, "a schema is nested at most 16 deep"
        return
    if not isinstance(schema, Mapping):
        yield at or "/", "a schema is an object"
        return
    for name in sorted(set(map(str, schema)) - _KNOWN - {"$schema", "$comment"}):
        yield f"{at}/{name}", f"unknown keyword; known are {', '.join(sorted(_KNOWN))}"
    kinds = _types(schema)
    if not kinds and "enum" not in schema and "const" not in schema:
        yield at or "/", "a schema names its type, an enum or a const"
    for kind in kinds:
        if kind not in TYPES:
            yield f"{at}/type", f"{kind!r} is none of {', '.join(TYPES)}"
    yield from _inner_faults(schema, at)


def _inner_faults(schema: Mapping[str, Any], at: str) -> Iterator[tuple[str, str]]:
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping):
        yield f"{at}/properties", "properties is an object of schemas"
        return
    for name in schema.get("required", ()):
        if name not in properties:
            yield f"{at}/required", f"{name!r} is required but is no property"
    for name, inner in properties.items():
        yield from faults_of(inner, at=f"{at}/properties/{name}")
    if "items" in schema:
        yield from faults_of(schema["items"], at=f"{at}/items")
    elif "array" in _types(schema):
        yield at or "/", "an array says what its items are"
    if "enum" in schema and not (isinstance(schema["enum"], list) and schema["enum"]):
        yield f"{at}/enum", "an enum is a list with at least one value"
    fault = pattern_fault(str(schema.get("pattern", "")))
    if fault is not None:
        yield f"{at}/pattern", f"the pattern {fault}"


def misfits(value: Any, schema: Mapping[str, Any], *, at: str = "") -> Iterator[tuple[str, str]]:
    """Yield (place, what came and the rule) wherever ``value`` does not fit ``schema``."""
    kinds = _types(schema)
    if kinds and not any(_CHECKS[kind](value) for kind in kinds):
        yield at, f"is {_named(value)}, it must be {' or '.join(kinds)}"
        return
    if "const" in schema and not _same(value, schema["const"]):
        yield at, f"is {_short(value)}, it must be {_short(schema['const'])}"
    if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
        some = ", ".join(_short(one) for one in schema["enum"][:8])
        yield at, f"is {_short(value)}, it must be one of {some}"
    if isinstance(value, str):
        yield from _string(value, schema, at)
    elif isinstance(value, Mapping):
        yield from _object(value, schema, at)
    elif isinstance(value, Sequence):
        yield from _array(value, schema, at)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _within(value, schema, ("minimum", "maximum"), at, "")


def fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether ``value`` fits ``schema``."""
    return next(misfits(value, schema), None) is None


def told(found: Sequence[tuple[str, str]]) -> str:
    """Return the first few of what ``misfits`` found, in one sentence."""
    shown = "; ".join(f"{at.lstrip('.') or 'it'} {what}" for at, what in found[:_SHOWN])
    more = len(found) - _SHOWN
    return f"{shown}; and {more} more" if more > 0 else shown


def _object(
    value: Mapping[str, Any], schema: Mapping[str, Any], at: str
) -> Iterator[tuple[str, str]]:
    properties: Mapping[str, Any] = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{at}.{name}", "is missing"
    for name, inner in value.items():
        if name in properties:
            yield from misfits(inner, properties[name], at=f"{at}.{name}")
        elif schema.get("additionalProperties", True) is False:
            yield f"{at}.{str(name)[:40]}", f"is no field; the fields are {', '.join(properties)}"


def _array(value: Sequence[Any], schema: Mapping[str, Any], at: str) -> Iterator[tuple[str, str]]:
    yield from _within(len(value), schema, ("minItems", "maxItems"), at, " items")
    items = schema.get("items")
    if isinstance(items, Mapping):
        for place, inner in enumerate(value):
            yield from misfits(inner, items, at=f"{at}[{place}]")


def _string(value: str, schema: Mapping[str, Any], at: str) -> Iterator[tuple[str, str]]:
    yield from _within(len(value), schema, ("minLength", "maxLength"), at, " characters")
    pattern = schema.get("pattern")
    if pattern is not None and re.search(pattern, value) is None:
        yield at, f"is {_short(value)}, it must match {pattern}"


def _within(
    count: float, schema: Mapping[str, Any], names: tuple[str, str], at: str, unit: str
) -> Iterator[tuple[str, str]]:
    low, high = (schema.get(name) for name in names)
    if low is not None and count < low:
        yield (
            at,
            f"has {count:g}{unit}, the least is {low:g}"
            if unit
            else f"is {count:g}, the least is {low:g}",
        )
    if high is not None and count > high:
        yield (
            at,
            f"has {count:g}{unit}, the most is {high:g}"
            if unit
            else f"is {count:g}, the most is {high:g}",
        )


def _types(schema: Mapping[str, Any]) -> list[str]:
    kind = schema.get("type", [])
    return [str(one) for one in kind] if isinstance(kind, list) else [str(kind)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, Mapping),
    "array": lambda value: isinstance(value, list | tuple),
    "string": lambda value: isinstance(value, str),
    "number": _is_number,
    "integer": lambda value: _is_number(value) and float(value).is_integer(),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal in JSON, where 1 is 1.0 but not true."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _named(value: Any) -> str:
    for kind in ("null", "boolean", "integer", "number", "string", "array", "object"):
        if _CHECKS[kind](value):
            return kind
    return type(value).__name__


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
