"""A JSON schema as a grammar (GBNF) of JSON without blanks.

Grammar compilers let a generator put blanks and new lines wherever JSON allows them, and each is a
token: of an answer of a few short texts a seventh, indented a third. Only what can be said exactly is
translated (closed objects, arrays, strings, enums, plain patterns); for every other schema there is no
grammar and the compiler's own reading of it is used. The language of JSON is RFC 8259's, GBNF that of
llama.cpp, which XGrammar reads too. Pure.

Which JSON schemas (and other nested JSON) may be handed to a generator.

Grammar compilers trust their input: deep nesting ends llama.cpp's process, ``minItems`` above
``maxItems`` (or ``a{2,1}`` in a pattern) hangs it for everybody, thousands of parts stall it for
seconds, and look-around in a pattern is dropped without a word. Such schemas are refused here, by name, before they are sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ondol.core.errors import InvalidInput
from ondol.core.patterns import MAX_REPEATS, pattern_fault

_NOTES = {"title", "description", "default", "examples", "$schema", "$comment"}
_KNOWN = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"minLength", "maxLength", "pattern"},
    "integer": set(),
    "number": set(),
    "boolean": set(),
    "null": set(),
}
_PLAIN = {
    "integer": r'"-"? ("0" | [1-9] [0-9]{0,15})',
    "number": r'"-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]{1,16})? ([eE] [+-]? [0-9]{1,3})?',
    "boolean": '"true" | "false"',
    "null": '"null"',
}
_CHAR = r'[^"\\\x00-\x1f] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})'
_CLASSES = {"d": "[0-9]", "w": "[A-Za-z0-9_]", "s": "[ ]"}
_TOLD = re.compile(r"[A-Za-z0-9 _%'/&$+,.!?~:;@#=<>·「」()-]|[^\x00-\x7f]")
_CLASS = re.compile(r"\[([^\\\[\]^\"\x00-\x1f][^\\\[\]\"\x00-\x1f]*)\]")
_TIMES = re.compile(r"[*+?]|\{\d{1,4}(?:,\d{0,4})?\}")


class _Untold(Exception):
    """The schema says something that has no translation here."""


def grammar_of(schema: Mapping[str, Any]) -> str | None:
    """Return the grammar of the values that fit ``schema``, written without blanks, if there is one."""
    rules = _Rules()
    try:
        root = rules.of(schema)
    except _Untold:
        return None
    return "\n".join([f"root ::= {root}", *rules.lines()]) + "\n"


class _Rules:
    """The rules of one grammar; equal ones are written once."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def lines(self) -> list[str]:
        return [f"{name} ::= {body}" for body, name in self._names.items()]

    def of(self, schema: Any) -> str:
        """Return the name of the rule for ``schema``."""
        if not isinstance(schema, Mapping):
            raise _Untold
        words = set(schema) - _NOTES
        if "const" in schema or "enum" in schema:
            if words - {"type", "const", "enum"} or ("const" in schema and "enum" in schema):
                raise _Untold
            return self._named(_values(schema))
        kind = schema.get("type")
        kinds = [str(one) for one in kind] if isinstance(kind, list) else [str(kind)]
        if not kinds or not all(one in _KNOWN for one in kinds):
            raise _Untold
        if words - {"type"} - set().union(*(_KNOWN[one] for one in kinds)):
            raise _Untold
        return self._named(" | ".join(self._of_kind(one, schema) for one in kinds))

    def _named(self, body: str) -> str:
        return self._names.setdefault(body, f"r{len(self._names)}")

    def _of_kind(self, kind: str, schema: Mapping[str, Any]) -> str:
        match kind:
            case "object":
                return self._object(schema)
            case "array":
                return self._array(schema)
            case "string":
                return self._string(schema)
            case _:
                return self._named(_PLAIN[kind])

    def _object(self, schema: Mapping[str, Any]) -> str:
        """Return the rule of an object whose properties come in their order, if at all."""
        properties: Mapping[str, Any] = schema.get("properties", {})
        required = schema.get("required", ())
        if schema.get("additionalProperties", True) is not False:
            raise _Untold
        if not all(name in properties for name in required):
            raise _Untold
        members = [
            (f"{_told(json.dumps(name, ensure_ascii=False) + ':')} {self.of(inner)}", name)
            for name, inner in properties.items()
        ]
        # From the last to the first: what may still come, at the beginning and behind another.
        first = behind = '"}"'
        for member, name in reversed(members):
            with_it, with_comma = f"{member} {behind}", f'"," {member} {behind}'
            if name in required:
                first, behind = self._named(with_it), self._named(with_comma)
            else:
                first = self._named(f"{with_it} | {first}")
                behind = self._named(f"{with_comma} | {behind}")
        return self._named(f'"{{" {first}')

    def _array(self, schema: Mapping[str, Any]) -> str:
        least, most = _bounds(schema, "minItems", "maxItems")
        if most == 0:
            return '"[]"'
        item = self.of(schema.get("items"))
        more = f'("," {item}){_times(max(least - 1, 0), None if most is None else most - 1)}'
        return self._named(f'"[" {item} {more} "]"' if least else f'"[" ({item} {more})? "]"')

    def _string(self, schema: Mapping[str, Any]) -> str:
        pattern = schema.get("pattern")
        if pattern is None:
            char = self._named(_CHAR)
            return self._named(
                f'"\\"" {char}{_times(*_bounds(schema, "minLength", "maxLength"))} "\\""'
            )
        # As for grammar compilers, a pattern takes the place of the length.
        if not (isinstance(pattern, str) and pattern[:1] == "^" and pattern[-1:] == "$"):
            raise _Untold
        body, end = _expression(pattern[1:-1], 0)
        if end != len(pattern) - 2:
            raise _Untold
        return self._named(f'"\\"" ({body}) "\\""')


def _values(schema: Mapping[str, Any]) -> str:
    values: Sequence[Any] = schema["enum"] if "enum" in schema else [schema["const"]]
    if not isinstance(values, list) or not values:
        raise _Untold
    return " | ".join(
        _told(json.dumps(one, ensure_ascii=False, separators=(",", ":"))) for one in values
    )


def _told(text: str) -> str:
    """Return ``text`` as a literal of the grammar."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    if any(char < " " or "\ud800" <= char <= "\udfff" for char in escaped):
        raise _Untold
    return f'"{escaped}"'


def _bounds(schema: Mapping[str, Any], low: str, high: str) -> tuple[int, int | None]:
    least, most = schema.get(low, 0), schema.get(high)
    for one in (least, most):
        if one is not None and (isinstance(one, bool) or not isinstance(one, int) or one < 0):
            raise _Untold
    if most is not None and most < least:
        raise _Untold
    return least, most


def _times(least: int, most: int | None) -> str:
    if most is None:
        return "*" if least == 0 else f"{{{least},}}"
    return f"{{{least},{most}}}"


def _expression(pattern: str, at: int) -> tuple[str, int]:
    """Return the alternatives of ``pattern`` from ``at`` on, and where they end."""
    alternatives: list[str] = []
    parts: list[str] = []
    while at < len(pattern) and pattern[at] != ")":
        if pattern[at] == "|":
            alternatives.append(" ".join(parts) or '""')
            parts = []
            at += 1
            continue
        part, at = _atom(pattern, at)
        times = _TIMES.match(pattern, at)
        if times is not None:
            part, at = part + times[0], times.end()
            if pattern[at : at + 1] in ("?", "+"):  # lazy or possessive
                raise _Untold
        parts.append(part)
    return " | ".join([*alternatives, " ".join(parts) or '""']), at


def _atom(pattern: str, at: int) -> tuple[str, int]:
    char = pattern[at]
    if char == "(":
        start = at + 3 if pattern.startswith("(?:", at) else at + 1
        if pattern.startswith("?", start):
            raise _Untold
        inner, end = _expression(pattern, start)
        if pattern[end : end + 1] != ")":
            raise _Untold
        return f"({inner})", end + 1
    if char == "[":
        found = _CLASS.match(pattern, at)
        if found is None:
            raise _Untold
        return found[0], found.end()
    if char == "\\":
        escaped = pattern[at + 1 : at + 2]
        if escaped in _CLASSES:
            return _CLASSES[escaped], at + 2
        if escaped.isalnum() or escaped in ('"', "\\", "") or ord(escaped) < 32:
            raise _Untold
        return _told(escaped), at + 2
    if char in ".*+?{}^$]" or _TOLD.match(char) is None:
        raise _Untold
    return _told(char), at + 1


MAX_DEPTH = 64
MAX_PARTS = 1000
MAX_CHARS = 32_768

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
    fault = pattern_fault(pattern) if isinstance(pattern, str) else None
    if fault is not None:
        raise InvalidInput(
            f"the pattern {pattern[:80]!r} in the JSON schema {fault}",
            hint="write it short, with plain groups, classes and small counts",
            param=param,
        )


def _number(value: Any) -> float | None:
    """Return ``value`` if it is a number; a property may well be called ``maximum``."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
