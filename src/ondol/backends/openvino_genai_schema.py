"""Which JSON schemas OpenVINO GenAI's grammar compiler is spared.

It compiles a schema only in the middle of a step, and one that it rejects ends the process for
everybody; so unknown types and references that lead nowhere are refused before they are sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ondol.core.errors import InvalidInput

_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_VALUES = ("enum", "const", "default", "examples")
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
