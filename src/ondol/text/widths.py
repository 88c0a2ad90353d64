"""The form in which text is searched: stored form with wide characters made narrow.

``７５０`` counts as ``750`` and ``ＡＰＩ`` as ``API``; the ideographic space is a space and every
hyphen a hyphen. One character for one. Only for keywords and look-ups: stored text keeps what it has.
"""

from __future__ import annotations

from ondol.text.normalise import normalise

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
