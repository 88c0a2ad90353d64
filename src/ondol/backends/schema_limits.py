"""Which JSON schemas (and other nested JSON) may be handed to a generator.

Grammar compilers trust their input: deep nesting ends llama.cpp's process, ``minItems`` above
``maxItems`` hangs it for everybody, thousands of parts stall it for seconds, and look-around in a
pattern is dropped without a word. Such schemas are refused here, by name, before they are sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ondol.core.errors import InvalidInput

MAX_DEPTH = 64
MAX_PARTS = 1000
MAX_CHARS = 32_768
MAX_REPEATS = 1000

_RANGES = [
    ("minItems", "maxItems"),
    ("minLength", "maxLength"),
    ("minProperties", "maxProperties"),
    ("minimum", "maximum"),
]
_REPEATS = ("minItems", "maxItems", "minLength", "maxLength")


def check_schema(schema: Mapping[str, Any], *, param: str) -> None:
    """Refuse a schema that a generator would crash, hang or be silent on; names ``param``."""
    check_depth(schema, param=param)
    parts, chars = 0, 0
    for value in _parts(schema):
        parts += 1
        chars += len(value) if isinstance(value, str) else 1
        if isinstance(value, Mapping):
            chars += sum(len(str(key)) for key in value)
            _check_ranges(value, param)
            _check_pattern(value.get("pattern"), param)
    for count, limit, unit in ((parts, MAX_PARTS, "parts"), (chars, MAX_CHARS, "characters")):
        if count > limit:
            raise InvalidInput(
                f"the JSON schema has {count} {unit}, the limit is {limit}",
                hint="shorten it: fewer enum values or properties",
                param=param,
            )


def check_depth(value: Any, *, param: str) -> None:
    """Refuse JSON nested deeper than ``MAX_DEPTH``; costs no stack itself."""
    depth, level = 0, [value]
    while level:
        if depth > MAX_DEPTH:
            raise InvalidInput(
                f"{param} is nested deeper than {MAX_DEPTH} levels", hint="flatten it", param=param
            )
        level, depth = [inner for item in level for inner in _inner(item)], depth + 1


def _parts(value: Any) -> Iterator[Any]:
    """Yield every value in ``value``, itself included."""
    todo = [value]
    while todo:
        item = todo.pop()
        yield item
        todo += _inner(item)


def _inner(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, (list, tuple)) else []


def _check_ranges(schema: Mapping[str, Any], param: str) -> None:
    for low, high in _RANGES:
        least, most = _number(schema.get(low)), _number(schema.get(high))
        if least is not None and most is not None and least > most:
            raise InvalidInput(
                f"the JSON schema asks for {low} {least:g} and {high} {most:g}",
                hint="nothing can fit it: mend one of the two",
                param=param,
            )
    for name in _REPEATS:
        count = _number(schema.get(name))
        if count is not None and count > MAX_REPEATS:
            raise InvalidInput(
                f"the JSON schema has {name} {count:g}, the limit is {MAX_REPEATS}",
                hint=f"lower {name}, or leave it out",
                param=param,
            )


def _check_pattern(pattern: Any, param: str) -> None:
    if isinstance(pattern, str) and "(?" in pattern.replace("(?:", ""):
        raise InvalidInput(
            f"the pattern {pattern[:80]!r} in the JSON schema uses look-around or flags",
            hint="write it with plain groups and classes",
            param=param,
        )


def _number(value: Any) -> float | None:
    """Return ``value`` if it is a number; a property may well be called ``maximum``."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
