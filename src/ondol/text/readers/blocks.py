"""A document being written: headings, paragraphs and tables in the order in which they come.

Headings become Markdown headings and list items bullets, as everywhere in the stored text; tables
become rows (``table_rows``) set off by blank lines.
"""

from __future__ import annotations

import re

from ondol.text.normalise import normalise
from ondol.text.readers.table_rows import Rows, table_lines

_CONTROLS = re.compile("[\x01-\x08\x0b\x0c\x0e-\x1f\ufeff\uffff]")
_GAPS = re.compile(r"\n{3,}")
_TRAILING = re.compile(r"[ \t\u00a0]+(?=\n)")
_MAX_HEADING = 6


class Blocks:
    """Collects blocks; ``text`` is the document so far in stored form."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self.title = ""

    def heading(self, text: str, level: int) -> None:
        """Add a heading of ``level`` 1 to 6; the first one is the document's title of its own."""
        words = " ".join(text.split())
        if words:
            self.title = self.title or words
            self._pieces.append(f"\n\n{'#' * min(max(level, 1), _MAX_HEADING)} {words}\n\n")

    def paragraph(self, text: str, *, apart: bool = False) -> None:
        """Add a paragraph on its own line, or ``apart``: with a blank line around it."""
        self._pieces.append(f"\n\n{text}\n\n" if apart else f"{text}\n")

    def item(self, text: str) -> None:
        """Add a list item."""
        if text.strip():
            self._pieces.append(f"\n- {text.strip()}\n")

    def table(self, rows: Rows, *, header: bool = False) -> None:
        """Add a table; one without text adds nothing."""
        lines = table_lines(rows, header=header)
        if lines:
            self._pieces.append("\n\n" + "\n".join(lines) + "\n\n")

    def text(self) -> str:
        """Return the text: normalised, without control characters, at most one blank line."""
        whole = _CONTROLS.sub("", normalise("".join(self._pieces)))
        return _GAPS.sub("\n\n", _TRAILING.sub("", whole)).replace("\n\n- ", "\n- ").strip("\n ")
