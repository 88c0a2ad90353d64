"""One record as a document: which fields are its text, title and id, and what is metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ondol.core.types import ReadDocument
from ondol.text.normalise import normalise
from ondol.text.readers.contract import ReadFailure, ReadLimits, failed, too_many_chars

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
