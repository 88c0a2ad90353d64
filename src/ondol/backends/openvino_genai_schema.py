"""How JSON schemas are put to OpenVINO GenAI's grammar compiler (XGrammar), and which it is spared.

It compiles a schema only in the middle of a step, and one that it rejects ends the process for
everybody; so unknown types and references that lead nowhere are refused before they are sent. It
loses the last lead byte of a range of three-byte characters (of ``[가-힣]`` all from 퀀 on, so 하 and
한) and does not enforce negated classes beyond ASCII (mlc-ai/xgrammar #909, #848): ranges are
split where the lead byte changes, such classes refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ondol.core.errors import InvalidInput

_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_VALUES = ("enum", "const", "default", "examples")
_LAST_ASCII = "\x7f"
_NAMED = ("properties", "$defs", "definitions", "patternProperties")


def check_types(schema: Mapping[str, Any], *, param: str) -> None:
    """Raise ``InvalidInput`` for a schema with an unknown type or a reference to nothing."""
    for part in _schemas(schema):
        kind = part.get("type")
        for name in kind if isinstance(kind, list) else [kind]:
            if name is not None and name not in _TYPES:
                raise InvalidInput(
                    f"the JSON schema has the unknown type {name!r}",
                    hint=f"use {', '.join(_TYPES)}",
                    param=param,
                )
        target = part.get("$ref")
        if isinstance(target, str) and not _leads_somewhere(schema, target):
            raise InvalidInput(
                f"the JSON schema refers to {target!r}, which it does not hold",
                hint="refer to #/$defs/… of the same schema",
                param=param,
            )


def with_split_ranges(schema: Mapping[str, Any], *, param: str) -> dict[str, Any]:
    """Return ``schema`` with the ranges of its patterns split; ``InvalidInput`` for a negated one."""
    made: dict[str, Any] = json.loads(json.dumps(schema))
    for part in _schemas(made):
        if isinstance(part, dict) and isinstance(part.get("pattern"), str):
            part["pattern"] = _split_pattern(part["pattern"], param=param)
    return made


def _split_pattern(pattern: str, *, param: str) -> str:
    made: list[str] = []
    inside = negated = False
    at = 0
    while at < len(pattern):
        one = pattern[at]
        if one == "\\":
            made.append(pattern[at : at + 2])
            at += 2
            continue
        if inside and negated and one > _LAST_ASCII:
            raise InvalidInput(
                f"the pattern {pattern[:80]!r} in the JSON schema excludes {one!r}, which this "
                "generator cannot enforce",
                hint="name the characters that are allowed instead",
                param=param,
            )
        end = pattern[at + 2 : at + 3]
        if inside and pattern[at + 1 : at + 2] == "-" and end > _LAST_ASCII:
            made.append(_split_range(ord(one), ord(end)))
            at += 3
            continue
        if one == "[" and not inside:
            inside, negated = True, pattern[at + 1 : at + 2] == "^"
        elif one == "]":
            inside = False
        made.append(one)
        at += 1
    return "".join(made)


def _split_range(first: int, last: int) -> str:
    """Return a range in pieces of one lead byte of UTF-8 each, at most four bytes a character."""
    pieces: list[str] = []
    while first <= last:
        if 0xD800 <= first <= 0xDFFF:  # halves of pairs are no characters
            first = 0xE000
            continue
        width = 0x80 if first < 0x80 else 0x40 if first < 0x800 else 0x1000
        width = 0x40000 if first >= 0x10000 else width
        end = min(last, first // width * width + width - 1)
        end = 0xD7FF if 0xD000 <= first <= 0xD7FF < end else end
        pieces.append(chr(first) if first == end else f"{chr(first)}-{chr(end)}")
        first = end + 1
    return "".join(pieces)


def _schemas(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield ``schema`` and every schema within, but no value that only looks like one."""
    todo: list[Any] = [schema]
    while todo:
        part = todo.pop()
        if isinstance(part, list):
            todo += part
        elif isinstance(part, Mapping):
            yield part
            for key, value in part.items():
                if key in _NAMED and isinstance(value, Mapping):
                    todo += value.values()
                elif key not in _VALUES:
                    todo.append(value)


def _leads_somewhere(schema: Mapping[str, Any], target: str) -> bool:
    place: Any = schema
    if not target.startswith("#"):
        return False
    for step in filter(None, target[1:].split("/")):
        if not isinstance(place, Mapping) or step not in place:
            return False
        place = place[step]
    return isinstance(place, Mapping)
