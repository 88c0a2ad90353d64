"""Plain text: the whole file is one document, titled by its name."""

from __future__ import annotations

from ondol.core.types import ReadDocument
from ondol.text.normalise import normalise
from ondol.text.readers.contract import ReadItems, ReadLimits, Source, no_text, too_many_chars
from ondol.text.readers.encoding import decode


def read_plain(source: Source, *, limits: ReadLimits) -> ReadItems:
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
