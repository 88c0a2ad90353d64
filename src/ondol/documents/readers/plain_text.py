"""Plain text: the whole file is one document, titled by its name.

Markdown: stored as it is written; the title is the front matter's, the first heading, or the name.
"""

from __future__ import annotations

import re

from ondol.core.types import ReadDocument
from ondol.documents.readers.encoding import decode
from ondol.documents.readers.reader_contract import (
    DocumentSource,
    ReadItems,
    ReadLimits,
    no_text,
    too_many_chars,
)
from ondol.language.normalise import normalise


def read_plain(source: DocumentSource, *, limits: ReadLimits) -> ReadItems:
    """Yield the document, or a failure: ``empty``, ``too_large``. Raises ``decode``'s errors."""
    decoded = decode(source.data, name=source.name)
    text = normalise(decoded.text)
    if len(text) > limits.max_chars:
        yield too_many_chars(source.name, len(text), limits)
    elif not text.strip():
        yield no_text(source.name)
    else:
        yield ReadDocument(
            source=source.name, title=source.stem, text=text, warnings=decoded.warnings
        )


_FRONT_MATTER = re.compile(r"---[ \t]*\n(.{0,4000}?)\n---[ \t]*(?:\n|$)", re.S)
_FRONT_TITLE = re.compile(r"^title:[ \t]*(.{1,300}?)[ \t]*$", re.M)
_HEADING = re.compile(r"^ {0,3}#[ \t]+(\S[^\n]{0,300}?)[ \t]*#*[ \t]*$", re.M)
_UNDERLINED = re.compile(r"^(\S[^\n]{0,300})\n=+[ \t]*$", re.M)
_HEAD = 20_000


def read_markdown(source: DocumentSource, *, limits: ReadLimits) -> ReadItems:
    """Yield the document, or a failure: ``empty``, ``too_large``. Raises ``decode``'s errors."""
    decoded = decode(source.data, name=source.name)
    text = normalise(decoded.text)
    if len(text) > limits.max_chars:
        yield too_many_chars(source.name, len(text), limits)
    elif not text.strip():
        yield no_text(source.name)
    else:
        yield ReadDocument(
            source=source.name,
            title=_title(text[:_HEAD]) or source.stem,
            text=text,
            media_type="text/markdown",
            warnings=decoded.warnings,
        )


def _title(head: str) -> str:
    front = _FRONT_MATTER.match(head)
    named = _FRONT_TITLE.search(front[1]) if front else None
    found = named or _HEADING.search(head) or _UNDERLINED.search(head)
    return found[1].strip().strip("\"'") if found else ""
