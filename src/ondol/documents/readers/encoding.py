"""Bytes to text: BOMs, UTF-8, UTF-16, then CP949/EUC-KR and Windows-1252 where the result reads well.

A guess is accepted only when the decoded text is plausible; otherwise the file is refused rather
than stored as noise. Standard library only.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from ondol.core.errors import ReadError
from ondol.documents.readers.plausible import hangul_shape

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE = 256 * 1024
_CONTROL = re.compile("[\x01-\x08\x0e-\x1a\x1c-\x1f\x7f\x80-\x84\x86-\x9f\ufffe\uffff]")
_LETTERS = re.compile(r"[^\W\d_]")
_HIGH = re.compile("[^\x00-\x7f]")
_ODD_IN_KOREAN = re.compile("[\u3041-\u30ff\u3131-\u318e\u4e00-\u9fff\uf900-\ufaff\u0370-\u04ff]")
_ODD_SHARE = 0.35
_STRAY_SHARE = 0.001
_WESTERN_SHARE = 0.1
_WIDE_SHARE = 0.02  # of NUL bytes: Korean in UTF-16 has them only in spaces and newlines
_SURELY_WIDE = 0.2
_HINT = "Save it as UTF-8 and read it again."


@dataclass(frozen=True, slots=True)
class Decoded:
    """Text, the encoding it came in, and what the reader should tell about the guess."""

    text: str
    encoding: str
    warnings: tuple[str, ...] = ()


def decode(data: bytes, *, name: str, declared: str | None = None) -> Decoded:
    """Return the text of ``data``; ``declared`` is an encoding the file itself names.

    Raises ``ReadError``: ``wrong_type`` when the bytes are binary, ``bad_encoding`` when no known
    encoding gives plausible text.
    """
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return _with_bom(data, encoding, name)
    wide = _utf16(data)
    if wide is not None:
        return wide
    _refuse_binary(data, name)
    strict = _try(data, "utf-8")
    if strict is not None:
        return Decoded(strict, "utf-8")
    for guess in (_declared(data, declared), _korean(data), _western(data), _damaged_utf8(data)):
        if guess is not None:
            return guess
    raise ReadError(
        f"{name!r} is not UTF-8, UTF-16 or CP949/EUC-KR text",
        code="bad_encoding",
        hint=_HINT,
        param=name,
    )


def _with_bom(data: bytes, encoding: str, name: str) -> Decoded:
    try:
        return Decoded(data.decode(encoding), encoding)
    except UnicodeDecodeError as error:
        raise ReadError(
            f"{name!r} begins as {encoding} but breaks at byte {error.start:,}: {error.reason}",
            code="bad_encoding",
            hint=_HINT,
            param=name,
        ) from error


def _utf16(data: bytes) -> Decoded | None:
    """Recognise UTF-16 without a BOM by where its NUL bytes stand."""
    sample = data[:_SAMPLE]
    if len(sample) < 4 or b"\x00" not in sample:
        return None
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    share = (even + odd) / len(sample)
    if share < _WIDE_SHARE or min(even, odd) * 8 > max(even, odd):
        return None
    if share < _SURELY_WIDE and _try(data, "utf-8") is not None:
        return None
    encoding = "utf-16-be" if even > odd else "utf-16-le"
    text = _try(data[: len(data) // 2 * 2], encoding)
    if text is None or "\x00" in text or not _reads_well(text):
        return None
    return Decoded(text, encoding, (f"read as {encoding} without a byte order mark",))


def _refuse_binary(data: bytes, name: str) -> None:
    sample = data[:_SAMPLE]
    nul = sample.count(0)
    controls = sum(sample.count(byte) for byte in b"\x01\x02\x03\x04\x05\x06\x07\x0e\x0f\x10\x11")
    if nul + controls > max(8, len(sample) // 50):
        raise ReadError(
            f"{name!r} is named as text but holds binary data ({nul:,} NUL bytes in the first "
            f"{len(sample):,})",
            code="wrong_type",
            hint="Give the file its right extension, or export it as text.",
            param=name,
        )


def _declared(data: bytes, declared: str | None) -> Decoded | None:
    if declared is None:
        return None
    name = declared.strip().lower()
    name = "cp949" if name in {"euc-kr", "euc_kr", "ks_c_5601-1987", "ksc5601", "korean"} else name
    try:
        text = _try(data, codecs.lookup(name).name)
    except LookupError:
        return None
    return Decoded(text, name) if text is not None and _reads_well(text) else None


def _korean(data: bytes) -> Decoded | None:
    text = _try(data, "cp949")
    if text is None or not _reads_well(text):
        return None
    high = _HIGH.findall(text[:_SAMPLE])
    shape = hangul_shape("".join(high))
    odd = len(_ODD_IN_KOREAN.findall("".join(high)))
    if shape.syllables == 0 or shape.garbled or odd > _ODD_SHARE * len(high):
        return None
    return Decoded(text, "cp949")


def _western(data: bytes) -> Decoded | None:
    """Accept Windows-1252 only for a few accents and quotes in ASCII text."""
    text = _try(data, "cp1252")
    if text is None or not _reads_well(text):
        return None
    high = len(_HIGH.findall(text[:_SAMPLE]))
    if high > _WESTERN_SHARE * min(len(text), _SAMPLE):
        return None
    return Decoded(text, "cp1252", ("read as Windows-1252 (not valid UTF-8)",))


def _damaged_utf8(data: bytes) -> Decoded | None:
    text = data.decode("utf-8", errors="replace")
    stray = text.count("\ufffd")
    if stray > max(1, _STRAY_SHARE * len(text)) or stray * 20 > len(text):
        return None
    return Decoded(text, "utf-8", (f"{stray} invalid UTF-8 bytes were replaced by U+FFFD",))


def _try(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        return None


def _reads_well(text: str) -> bool:
    sample = text[:_SAMPLE]
    if not sample:
        return True
    controls = len(_CONTROL.findall(sample))
    return controls * 100 <= len(sample) and len(_LETTERS.findall(sample)) * 10 >= len(sample)
