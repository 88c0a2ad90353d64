"""The one form in which text is stored: NFC, ``\\n`` newlines, no NUL, no lone surrogates.

Everything else is kept, so that quotes can be checked against what the source said. All offsets
in Ondol point into text of this form; ``normalise`` is idempotent.
"""

from __future__ import annotations

import re
import unicodedata

_NEWLINES = ("\r\n", "\r", "\x85", "\u2028", "\u2029")
_SURROGATES = re.compile("[\ud800-\udfff]")


def normalise(text: str) -> str:
    """Return ``text`` in stored form: newlines as ``\\n``, NUL dropped, surrogates as U+FFFD, NFC."""
    if "\x00" in text:
        text = text.replace("\x00", "")
    for newline in _NEWLINES:  # looked for one by one: a tenth of a regular expression's time
        if newline in text:
            text = text.replace(newline, "\n")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        text = _SURROGATES.sub("\ufffd", text)
    return unicodedata.normalize("NFC", text)
