"""The one form in which text is stored: NFC, ``\n`` newlines, no NUL, no lone surrogates.

Everything else is kept, so that quotes can be checked against what the source said. All offsets
in Ondol point into text of this form; ``normalise`` is idempotent.

The form in which text is searched: stored form with wide characters made narrow.

``７５０`` counts as ``750`` and ``ＡＰＩ`` as ``API``; the ideographic space is a space and every
hyphen a hyphen. One character for one. Only for keywords and look-ups: stored text keeps what it has.
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


_NARROW = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {
    0x3000: 0x20,
    0x2010: 0x2D,
    0x2011: 0x2D,
    0x2212: 0x2D,
    0xFF62: 0x300C,
    0xFF63: 0x300D,
}


def folded(text: str) -> str:
    """Return ``text`` in stored form (NFC) with full-width letters, digits and signs as ASCII."""
    return normalise(text if text.isascii() else text.translate(_NARROW))
