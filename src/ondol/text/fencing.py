"""Other people's text put before a generator as data: cleaned, on one line, between fences.

A fence is derived from the data it surrounds and does not occur in it, so that nobody can write it
into a review or a document, and equal data has equal fences (a prefix cache and a rerun see the same
prompt). Cleaning changes what steers, never what says: letters, numbers and marks stay. Pure.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

from ondol.text.prompts import defuse

_CONTROL = re.compile(
    r"<\|[^<>|\n]{0,40}\|>|</?(?:s|bos|eos|pad|unk|think|tool_call|tool_response|system|user|assistant)>"
    r"|</?(?:start|end)_of_turn>|</?(?:begin|end)_of_(?:text|sentence)>|<<\s?/?SYS\s?>>|\[/?(?:INST|SYSTEM_PROMPT)\]"
    r"|<｜[^<>｜\n]{0,40}｜>",
    re.IGNORECASE,
)
_ROLE = re.compile(
    r"^\s{0,8}#{1,6}\s{0,4}(?=(?:system|user|assistant|instruction|response|human)\b)", re.I | re.M
)
_MARKER = re.compile(r"\[(?=[a-z]{1,2}\d{1,4}\])", re.IGNORECASE)
_KEPT_CONTROLS = "\n\t"
_LETTERS = 8


def neutralised(text: str) -> str:
    """Return ``text`` without what a chat template or a terminal would obey.

    Control tokens of chat templates are broken up so that they are only words; control characters,
    bidirectional overrides, tag characters and private use are taken out; a marker such as ``[r3]``,
    with which a text could pass for another, becomes ``(r3]``.
    """
    kept = "".join(char for char in text if not _steers(char))
    broken = _CONTROL.sub(lambda found: _broken(found.group()), kept)
    return _MARKER.sub("(", defuse(_ROLE.sub("", broken)))


def one_line(text: str, *, limit: int | None = None) -> str:
    """Return ``text`` neutralised and on one line, cut with an ellipsis to ``limit`` characters."""
    flat = " ".join(neutralised(text).split())
    if limit is None or len(flat) <= limit:
        return flat
    return flat[: max(limit - 1, 0)].rstrip() + "…"


def fence(data: str) -> str:
    """Return the word that stands before and behind ``data``: it does not occur in it."""
    salt = 0
    while True:
        digest = hashlib.sha256(f"{salt}\0{data}".encode("utf-8", "surrogatepass"))
        word = digest.hexdigest()[:_LETTERS]
        if word not in data:
            return word
        salt += 1


def fenced(lines: Iterable[str]) -> str:
    """Return ``lines`` between two lines that hold their fence; each is neutralised and one line."""
    data = "\n".join(lines)
    word = fence(data)
    return f"<data {word}>\n{data}\n</data {word}>"


def _broken(token: str) -> str:
    """Put a zero-width blank behind the first character of ``token``."""
    return f"{token[0]}\u200b{token[1:]}"


def _steers(char: str) -> bool:
    if char in _KEPT_CONTROLS:
        return False
    category = unicodedata.category(char)
    return category in ("Cc", "Co", "Cs") or (category == "Cf" and char not in "\u200c\u200d")
