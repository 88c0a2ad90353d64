"""Prompts as packs write them: three parts of plain text with ``$name`` fields, no code.

``[system]`` is the same for every item of a task (a prefix cache serves it again), ``[data]`` frames
what came from outside and is fenced by us, ``[request]`` comes last. A field that is not known is an
error when the pack is loaded, never when a request runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from string import Template

from ondol.answers.prompts import one_line
from ondol.core.types import Message

PARTS = ("system", "data", "request")
FIELDS: dict[str, tuple[str, ...]] = {
    "system": ("title",),
    "data": ("data",),
    "request": (
        "groups",
        "aspects",
        "distribution",
        "count",
        "fields",
        "question",
        "name",
        "distinctive",
    ),
}
"""What each part may ask for; see docs/guides/packs.md."""

_HEAD = re.compile(r"^\[(\w+)\][ \t]*\n", re.MULTILINE)
_MOST_CHARS = 20_000


@dataclass(frozen=True, slots=True)
class Prompt:
    """The parts of one template."""

    system: str
    data: str
    request: str

    def messages(self, *, title: str, data: str, values: Mapping[str, str]) -> list[Message]:
        """Return the messages for one run; ``data`` is fenced already, ``values`` fill the request."""
        framed = Template(self.data).safe_substitute(data=data)
        asked = Template(self.request).safe_substitute(values)
        return [
            Message(role="system", content=Template(self.system).safe_substitute(title=title)),
            Message(role="user", content=f"{framed}\n\n{asked}"),
        ]


def read_prompt(text: str) -> tuple[Prompt | None, list[tuple[str, str]]]:
    """Return the prompt in ``text`` and its faults as (key, rule); no prompt where there are any."""
    faults: list[tuple[str, str]] = []
    if len(text) > _MOST_CHARS:
        faults.append(("", f"it has {len(text)} characters, the most is {_MOST_CHARS}"))
    pieces = _HEAD.split(text)
    parts = {name: body.strip() for name, body in zip(pieces[1::2], pieces[2::2], strict=True)}
    if pieces[0].strip():
        faults.append(("", "text stands before the first part; begin with [system]"))
    for name in sorted(set(parts) - set(PARTS)):
        faults.append((name, f"unknown part; the parts are {', '.join(PARTS)}"))
    for name in PARTS:
        faults += _part_faults(name, parts.get(name, ""))
    if faults:
        return None, faults
    return Prompt(system=parts["system"], data=parts["data"], request=parts["request"]), []


def _part_faults(name: str, text: str) -> list[tuple[str, str]]:
    if not text:
        return [(name, "the part is missing or empty")]
    template = Template(text)
    faults: list[tuple[str, str]] = []
    if not template.is_valid():
        faults.append((name, "a $ stands alone; write $$ for the sign itself"))
    fields = template.get_identifiers()
    for field in fields:
        if field not in FIELDS[name]:
            known = ", ".join(f"${one}" for one in FIELDS[name])
            faults.append((name, f"unknown field ${field}; this part knows {known}"))
    if name == "data" and "data" not in fields:
        faults.append((name, "the part does not say where the data goes; write $data"))
    return faults


def told_value(value: object, *, limit: int = 2_000) -> str:
    """Return a caller's value as a template may hold it: one line, neutralised, bounded."""
    return one_line(str(value), limit=limit)
