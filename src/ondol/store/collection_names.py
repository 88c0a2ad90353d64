"""Public names: which collection names are allowed, and what a document is called.

Pure functions; nothing here touches a file or the database.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable

from ondol.core.errors import InvalidInput

_COLLECTION = re.compile(r"\w[\w.\-]{0,63}")
_RECORD = re.compile(r".*\.(?:jsonl|ndjson|json|csv|tsv)#(?P<id>.+)", re.IGNORECASE | re.DOTALL)


def collection_name(name: str) -> str:
    """Return ``name`` in NFC, or raise ``InvalidInput`` where it is not a collection name."""
    normal = unicodedata.normalize("NFC", name)
    if not _COLLECTION.fullmatch(normal):
        raise InvalidInput(
            f"collection name {name[:80]!r}: 1 to 64 letters, digits, '-', '_' or '.', "
            "the first a letter, digit or '_'",
            hint="for example: laws-2026 or 취업규칙",
            param="collection",
        )
    return normal


def document_name(source: str) -> str:
    """Return what a source is called: a record's id (``…/laws.jsonl#민법_1`` → ``민법_1``), or the
    file's name (``…/rules.pdf`` → ``rules.pdf``)."""
    record = _RECORD.fullmatch(source)
    if record:
        return record["id"]
    return re.split(r"[/\\]", source.rstrip("/\\"))[-1] or source


def free_name(source: str, *, taken: Callable[[str], bool]) -> str:
    """Return the document name for ``source``, with a suffix from the source's hash if taken."""
    name = document_name(source)
    if not taken(name):
        return name
    digest = hashlib.sha256(source.encode()).hexdigest()
    for length in range(8, len(digest) + 1):
        candidate = f"{name}~{digest[:length]}"
        if not taken(candidate):
            return candidate
    return f"{name}~{digest}~"


def near(name: str, known: Iterable[str]) -> str:
    """Return a hint that names what ``name`` may have meant, or what there is."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {', '.join(close)}?"
    return f"there are: {', '.join(names[:10])}" if names else "there are none yet: ingest first"
