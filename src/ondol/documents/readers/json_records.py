"""One record as a document: which fields are its text, title and id, and what is metadata.

Record files: JSON Lines and JSON arrays. Each record is one document.

Text is the field ``text``, ``content``, ``body`` or ``review``; ``title`` and ``_id``/``id`` are
known too; every other field, and those of an object ``metadata``, become metadata. A bad record is
one failure naming its line; the others go on. BEIR's ``corpus.jsonl`` reads as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ondol.core.types import ReadDocument
from ondol.documents.readers.encoding import decode
from ondol.documents.readers.reader_contract import (
    DocumentSource,
    ReadFailure,
    ReadItem,
    ReadItems,
    ReadLimits,
    failed,
    no_text,
    too_many_chars,
)
from ondol.language.normalise import normalise

TEXT_FIELDS = ("text", "content", "body", "review", "본문", "내용", "리뷰")
TITLE_FIELDS = ("title", "제목")
ID_FIELDS = ("_id", "id")
NEEDS_TEXT = "Name the text field `text` (also read: `content`, `body`, `review`)."
_SHOWN = 60

Record = Mapping[str, Any]


class BadRecord(Exception):
    """A record that is no document: stable code, what is wrong, the remedy."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


def record_document(
    record: Record, *, source: str, limits: ReadLimits
) -> ReadDocument | ReadFailure:
    """Return the document of one record under the name ``source``, or why it is none."""
    try:
        fields = {str(key).strip(): value for key, value in record.items()}
        used: dict[str, str] = {}
        text = _text(fields, used)
        title = _field(fields, TITLE_FIELDS, used)
        _field(fields, ID_FIELDS, used)
        extra = {k: v for k, v in fields.items() if k not in used and k != "metadata"}
        given = fields.get("metadata")
        if isinstance(given, Mapping):
            extra.update(given)
        elif given not in (None, ""):
            extra["metadata"] = given
        stored = normalise(text)
        if len(stored) > limits.max_chars:
            return too_many_chars(source, len(stored), limits)
        return ReadDocument(
            source=source,
            title=normalise(str(title or "")).strip(),
            text=stored,
            metadata=_clean(extra),
            media_type="application/json",
        )
    except BadRecord as error:
        return failed(source, error.code, f"{source!r} {error}", hint=error.hint)


def as_object(value: Any) -> Record:
    """Return ``value`` as a record; a bare string is its text. Raises ``BadRecord``."""
    if isinstance(value, str):
        return {"text": value}
    if not isinstance(value, Mapping):
        raise BadRecord(
            "bad_record",
            f"holds a {type(value).__name__}, not an object",
            'Write records as objects such as {"_id": "1", "text": "…"}.',
        )
    return value


def identity(record: Record) -> str:
    """Return the record's own id as text, or ``""`` when it has none."""
    value = _field(record, ID_FIELDS, {})
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return ""
    return normalise(str(value)).strip().replace("\n", " ")[:200]


def _text(fields: Record, used: dict[str, str]) -> str:
    value = _field(fields, TEXT_FIELDS, used)
    if value is None:
        names = shown(", ".join(fields) or "none")
        raise BadRecord("bad_record", f"has no text field (fields: {names})", NEEDS_TEXT)
    if not isinstance(value, str):
        kind = type(value).__name__
        raise BadRecord("bad_record", f"has a text field that is a {kind}", "Make it a string.")
    if not value.strip():
        raise BadRecord("empty", "has an empty text field", "Leave the record out, or fill it.")
    return value


def _field(fields: Record, names: Iterable[str], used: dict[str, str]) -> Any:
    """Return the first of ``names`` that ``fields`` has, whatever its case, and note it as used."""
    by_name = {str(key).lower(): str(key) for key in fields}
    for name in names:
        key = by_name.get(name)
        if key is not None:
            used[key] = name
            return fields[key]
    return None


def _clean(value: Any) -> Any:
    """Return metadata in stored form: every string, keys too, without NUL and lone surrogates."""
    if isinstance(value, str):
        return normalise(value)
    if isinstance(value, Mapping):
        return {normalise(str(key)): _clean(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_clean(inner) for inner in value]
    return value


def shown(text: str) -> str:
    """Return ``text`` short enough for a message."""
    clean = normalise(text)
    return clean if len(clean) <= _SHOWN else clean[: _SHOWN - 1] + "…"


Numbered = Iterator[tuple[str, Any]]  # "line 3", and the value there or the BadRecord it is


def read_jsonl(source: DocumentSource, *, limits: ReadLimits) -> ReadItems:
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


def read_json(source: DocumentSource, *, limits: ReadLimits) -> ReadItems:
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


def read_each(
    source: DocumentSource, records: Numbered, *, limits: ReadLimits
) -> Iterator[ReadItem]:
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
