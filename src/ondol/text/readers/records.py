"""Record files: JSON Lines and JSON arrays. Each record is one document.

Text is the field ``text``, ``content``, ``body`` or ``review``; ``title`` and ``_id``/``id`` are
known too; every other field, and those of an object ``metadata``, become metadata. A bad record is
one failure naming its line; the others go on. BEIR's ``corpus.jsonl`` reads as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from ondol.core.types import ReadDocument
from ondol.text.readers.contract import (
    ReadFailure,
    ReadItem,
    ReadItems,
    ReadLimits,
    Source,
    failed,
    no_text,
)
from ondol.text.readers.encoding import decode
from ondol.text.readers.record import BadRecord, as_object, identity, record_document, shown

Numbered = Iterator[tuple[str, Any]]  # "line 3", and the value there or the BadRecord it is


def read_jsonl(source: Source, *, limits: ReadLimits) -> ReadItems:
    """Yield one item for each non-blank line."""
    text = decode(source.data, name=source.name).text
    if text[:4096].lstrip()[:1] == "[" and (values := _array(text)) is not None:
        yield from read_each(source, _numbered("record", values), limits=limits)
        return
    lines = (
        (f"line {number}", _parsed(line))
        for number, line in enumerate(_lines(text), start=1)
        if line.strip()
    )
    yield from read_each(source, lines, limits=limits)


def read_json(source: Source, *, limits: ReadLimits) -> ReadItems:
    """Yield one item for each record of an array, or for the one object; JSON Lines also reads."""
    text = decode(source.data, name=source.name).text
    try:
        value = _parse(text)
    except BadRecord as error:
        if text[:4096].lstrip()[:1] == "{" and "Extra data" in str(error):
            yield from read_jsonl(source, limits=limits)
            return
        yield failed(
            source.name, "damaged", f"{source.name!r} is no JSON: {error}", hint=error.hint
        )
        return
    values = value if isinstance(value, list) else [value]
    yield from read_each(source, _numbered("record", values), limits=limits)


def read_each(source: Source, records: Numbered, *, limits: ReadLimits) -> Iterator[ReadItem]:
    """Read records one by one; ids must be unique within the file."""
    seen: dict[str, str] = {}
    place = ""
    for place, value in records:
        number = place.rpartition(" ")[2]
        try:
            if isinstance(value, BadRecord):
                raise value
            record = as_object(value)
            name = identity(record) or number
            if name in seen:
                raise BadRecord(
                    "bad_record",
                    f"repeats the id {shown(name)!r} of {seen[name]}",
                    "Give every record its own `_id`.",
                )
            seen[name] = place
        except BadRecord as error:
            yield failed(
                f"{source.name}#{number}",
                error.code,
                f"{source.name!r} {place}: {error}",
                hint=error.hint,
            )
            continue
        item = record_document(record, source=f"{source.name}#{name}", limits=limits)
        yield item if isinstance(item, ReadDocument) else _placed(item, source.name, place)
    if not place:
        yield no_text(source.name)


def _placed(failure: ReadFailure, name: str, place: str) -> ReadFailure:
    return failed(
        failure.source,
        failure.error.code,
        f"{name!r} {place}: {failure.error.message}",
        hint=failure.error.hint,
    )


def _lines(text: str) -> Iterator[str]:
    """Yield lines at ``\\n`` only: JSON strings may hold U+2028, which ``splitlines`` would cut."""
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield text[start:end]
        start = end + 1


def _numbered(word: str, values: Iterable[Any]) -> Numbered:
    return ((f"{word} {number}", value) for number, value in enumerate(values, start=1))


def _parsed(line: str) -> Any:
    try:
        return _parse(line)
    except BadRecord as error:
        return error


def _array(text: str) -> list[Any] | None:
    try:
        value = _parse(text)
    except BadRecord:
        return None
    return value if isinstance(value, list) else None


def _parse(text: str) -> Any:
    try:
        return json.loads(text.replace("\x00", ""), parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise BadRecord(
            "bad_record",
            f"is no JSON ({error.msg} at character {error.pos + 1})",
            "Write one JSON object a line.",
        ) from error
    except (RecursionError, ValueError) as error:
        raise BadRecord(
            "bad_record",
            f"is no usable JSON ({error})",
            "Use plain JSON values, not nested deeply.",
        ) from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
