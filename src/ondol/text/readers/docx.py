"""DOCX by the standard library: paragraphs, headings, lists and tables in document order.

Text that was deleted under change tracking, field codes and the second copy of alternate content
are left out; footnotes and endnotes follow the text. Page headers and footers are not read.
"""

from __future__ import annotations

import re

from ondol.core.types import ReadDocument
from ondol.text.normalise import normalise
from ondol.text.readers.archive import Archive, damaged
from ondol.text.readers.blocks import Blocks
from ondol.text.readers.contract import ReadItems, ReadLimits, Source, no_text, too_many_chars
from ondol.text.readers.docx_body import Body
from ondol.text.readers.xml_events import Attributes, BadXml, parse_xml

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_MAIN = "word/document.xml"
_NOTES = ("word/footnotes.xml", "word/endnotes.xml")
_HEADING_NAME = re.compile(r"(?:heading|제목|개요)\s*([1-9])", re.I)
_TITLE_CHARS = 120


def read_docx(source: Source, *, limits: ReadLimits) -> ReadItems:
    """Yield the document, or a failure: ``empty``, ``too_large``.

    Raises ``ReadError``: ``damaged``, ``encrypted``, ``too_large`` (what it unpacks to).
    """
    archive = Archive(source, limits=limits)
    blocks = Blocks()
    try:
        levels = _heading_levels(archive.read("word/styles.xml"))
        Body(blocks, levels).read(archive.need(_MAIN))
        for name in _NOTES:
            notes = archive.read(name)
            if notes is not None:
                Body(blocks, {}).read(notes)
        title = _title(archive.read("docProps/core.xml"))
    except BadXml as error:
        raise damaged(source, str(error)) from error
    text = blocks.text()
    if len(text) > limits.max_chars:
        yield too_many_chars(source.name, len(text), limits)
    elif not text:
        yield no_text(source.name)
    else:
        yield ReadDocument(
            source=source.name,
            title=title or blocks.title[:_TITLE_CHARS] or source.stem,
            text=text,
            media_type=MEDIA_TYPE,
        )


def _heading_levels(data: bytes | None) -> dict[str, int]:
    """Return style id → heading level: by outline level, else by the style's name."""
    levels: dict[str, int] = {}
    style = ""

    def start(name: str, given: Attributes) -> None:
        nonlocal style
        value = given.get("val", "")
        if name == "style":
            style = given.get("styleId", "")
        elif name == "name" and style:
            named = _HEADING_NAME.fullmatch(value.strip())
            if named:
                levels[style] = int(named[1])
            elif value.strip().lower() == "title":
                levels[style] = 1
        elif name == "outlineLvl" and style and value.isdecimal() and int(value) < 9:
            levels[style] = int(value) + 1

    def end(name: str) -> None:
        nonlocal style
        if name == "style":
            style = ""

    if data is not None:
        parse_xml(data, start=start, end=end, text=lambda _: None)
    return levels


def _title(data: bytes | None) -> str:
    """Return the title of the core properties, or ``""``."""
    found: list[str] = []
    inside = False

    def start(name: str, given: Attributes) -> None:
        nonlocal inside
        inside = name == "title"

    def end(name: str) -> None:
        nonlocal inside
        inside = False

    def text(words: str) -> None:
        if inside:
            found.append(words)

    if data is not None:
        parse_xml(data, start=start, end=end, text=text)
    return " ".join(normalise("".join(found)).split())[:_TITLE_CHARS]
