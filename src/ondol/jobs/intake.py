"""Items as they come, checked before anything is queued: parsed, named, measured, made comparable.

One bad item does not spoil the rest: it goes into the job as failed, with its reason. Only what
concerns the job as a whole is an error: none, too many, too large, or nothing usable among them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from pydantic_core import from_json

from ondol.core.errors import InvalidInput, PayloadTooLarge, TooManyItems
from ondol.core.settings.operation_sections import JobSettings
from ondol.jobs.attempt import reason
from ondol.jobs.job_rows import ItemError, NewItem
from ondol.jobs.work import Work

LONGEST_ID = 200
_SHAPE = 'send {"id": "r1", "input": {…}}; the id may be left out'

_LARGEST = 10**10 - 1
"""Bytes of an item from which on no larger one is told apart."""


@dataclass(frozen=True, slots=True)
class SubmittedItem:
    """One item as it came: ``input`` of the task, or why it is none."""

    id: str | None = None
    input: Mapping[str, Any] | None = None
    error: ItemError | None = None


def given_value(value: Any) -> SubmittedItem:
    """Return an item from parsed JSON; what it breaks is its ``error``."""
    if not isinstance(value, dict) or not isinstance(value.get("input"), dict):
        return SubmittedItem(
            _id_of(value),
            error=ItemError("invalid_item", "an item is an object with an object input", _SHAPE),
        )
    if unknown := [str(name)[:40] for name in value if name not in ("id", "input")]:
        return SubmittedItem(
            _id_of(value),
            error=ItemError(
                "unknown_field", f"an item has the unknown field {unknown[0]!r}", _SHAPE
            ),
        )
    name = _id_of(value)
    if value.get("id") is not None and name is None:
        return SubmittedItem(
            error=ItemError(
                "invalid_id",
                f"an id is text of 1 to {LONGEST_ID} printable characters, or a whole number",
                "send a shorter id, or none",
            )
        )
    return SubmittedItem(name, value["input"])


def given_line(line: bytes) -> SubmittedItem:
    """Return an item from a line of JSON Lines."""
    try:
        return given_value(from_json(line, allow_inf_nan=False))
    except ValueError as error:
        return SubmittedItem(
            error=ItemError("malformed_json", f"not valid JSON: {error}", "mend this line")
        )


def given_lines(file: BinaryIO, *, most: int) -> Iterator[SubmittedItem]:
    """Yield the items of a JSON Lines file; one longer than ``most`` bytes is read past, not in."""
    while line := file.readline(most + 1):
        if len(line) > most and not line.endswith(b"\n"):
            while (rest := file.readline(most)) and not rest.endswith(b"\n"):
                pass
            yield SubmittedItem(error=_too_long(most))
        elif line.strip():
            yield given_line(line)


def prepared(
    task: str, given: Iterable[SubmittedItem], *, work: Work, settings: JobSettings
) -> list[NewItem]:
    """Return the items of a job; an unusable one has its error. Takes as long as validating does.

    Raises ``NotFound`` for an unknown task, ``TooManyItems``, ``PayloadTooLarge``, and
    ``InvalidInput`` where there is no item or not one that can be worked.
    """
    work.require(task)
    items: list[NewItem] = []
    names: set[str] = set()
    size = 0
    for ordinal, one in enumerate(given):
        if ordinal >= settings.max_items:
            raise TooManyItems(
                f"the job has more than {settings.max_items} items",
                hint="split it, or raise jobs.max_items",
                param="items",
            )
        name = one.id if one.id is not None else f"item-{ordinal}"
        item = _item(task, name, one, taken=name in names, work=work, settings=settings)
        names.add(name)
        items.append(item)
        size += len(item.input)
        if size > settings.max_job_bytes:
            raise PayloadTooLarge(
                f"the inputs of the job have more than {settings.max_job_bytes} characters",
                hint="split it, or raise jobs.max_job_bytes",
                param="items",
            )
    _require_usable(items)
    return items


def _item(
    task: str, name: str, given: SubmittedItem, *, taken: bool, work: Work, settings: JobSettings
) -> NewItem:
    if given.input is None:
        return NewItem(name, "", error=given.error)
    if taken:
        return NewItem(
            name,
            "",
            error=ItemError(
                "duplicate_id", f"another item has the id {name!r} too", "give each its own"
            ),
        )
    text = json.dumps(given.input, ensure_ascii=False, separators=(",", ":"))
    try:
        if (size := len(text.encode())) > settings.max_item_bytes:
            raise PayloadTooLarge(
                f"the input has {size} bytes, the limit is {settings.max_item_bytes}",
                hint="split it, or raise jobs.max_item_bytes",
            )
        work.validate(task, given.input)
        # The largest first, so that no long one is left to run alone at the end.
        prefix = f"{work.prefix_key(task, given.input)}.{_LARGEST - min(size, _LARGEST):010d}"
    except PayloadTooLarge as error:
        return NewItem(name, "", error=reason(error))
    except InvalidInput as error:
        return NewItem(name, text, digest=_digest(task, given.input), error=reason(error))
    return NewItem(name, text, digest=_digest(task, given.input), prefix_key=prefix)


def _too_long(most: int) -> ItemError:
    return ItemError(
        "payload_too_large",
        f"the line has more than {most} bytes",
        "split the item, or raise jobs.max_item_bytes",
    )


def _digest(task: str, input: Mapping[str, Any]) -> bytes:
    same = json.dumps(input, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(f"{task}\n{same}".encode()).digest()


def _require_usable(items: list[NewItem]) -> None:
    if not items:
        raise InvalidInput(
            "the job has no items", hint="send at least one", code="empty_input", param="items"
        )
    first = items[0].error
    if first is not None and all(item.error is not None for item in items):
        raise InvalidInput(
            f"none of the {len(items)} items can be worked; items[0]: {first.message}",
            hint=first.hint,
            code=first.code,
            param="items",
        )


def _id_of(value: Any) -> str | None:
    name = value.get("id") if isinstance(value, dict) else None
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if isinstance(name, str) and 0 < len(name) <= LONGEST_ID and name.isprintable():
        return name
    return None
