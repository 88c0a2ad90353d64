"""EPUB by the standard library: the chapters of the book's spine, each read as HTML.

The package document names the order (EPUB 3.3, section 5); what stands outside the spine is not
read. Encrypted books (rights management) are refused; obfuscated fonts do not matter.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from urllib.parse import unquote

from ondol.core.errors import ReadError
from ondol.core.types import ReadDocument
from ondol.documents.readers.archive import Archive, damaged, encrypted
from ondol.documents.readers.encoding import decode
from ondol.documents.readers.html import html_text
from ondol.documents.readers.reader_contract import (
    DocumentSource,
    ReadItems,
    ReadLimits,
    no_text,
    too_many_chars,
)
from ondol.documents.readers.xml_events import Attributes, BadXml, parse_xml
from ondol.language.normalise import normalise

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_ENCRYPTED_TEXT = re.compile(rb"URI=[\"'][^\"']+\.x?html?[\"']", re.I)
_PAGES = frozenset({"application/xhtml+xml", "text/html", "application/xml"})
_CLOSED = re.compile(r"<(title|script|style|a|div|span|p|td|th|i|b|em)\b([^<>]*)/>", re.I)
_TITLE_CHARS = 120


@dataclass(slots=True)
class _Package:
    """What the package document says: the title, files by id, ids in reading order."""

    title: str = ""
    files: dict[str, str] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)


def read_epub(source: DocumentSource, *, limits: ReadLimits) -> ReadItems:
    """Yield the book as one document, or a failure: ``empty``, ``too_large``.

    Raises ``ReadError``: ``damaged``, ``encrypted``, ``too_large`` (what it unpacks to).
    """
    archive = Archive(source, limits=limits)
    if _ENCRYPTED_TEXT.search(archive.read(_ENCRYPTION) or b""):
        raise encrypted(source)
    try:
        path = _package_path(archive.need(_CONTAINER))
        package = _package(archive.need(path))
    except BadXml as error:
        raise damaged(source, str(error)) from error
    chapters: list[str] = []
    missing = chars = 0
    title = package.title
    for identifier in package.order:
        data = archive.read(posixpath.normpath(_beside(path, package.files.get(identifier, ""))))
        if data is None:
            missing += 1
            continue
        text, named = _chapter(source, data)
        title = title or named
        chapters.append(text)
        chars += len(text) + 2
        if chars > limits.max_chars:
            yield too_many_chars(source.name, chars, limits)
            return
    text = "\n\n".join(chapter for chapter in chapters if chapter)
    if not text:
        yield no_text(source.name)
        return
    yield ReadDocument(
        source=source.name,
        title=title[:_TITLE_CHARS] or source.stem,
        text=text,
        media_type="application/epub+zip",
        warnings=(f"{missing} chapters are missing from the file",) if missing else (),
    )


def _chapter(source: DocumentSource, data: bytes) -> tuple[str, str]:
    try:
        markup = normalise(decode(data, name=source.name).text)
    except ReadError as error:
        raise damaged(source, f"a chapter is no text ({error.code})") from error
    return html_text(_CLOSED.sub(r"<\1\2></\1>", markup))  # closed in XML, left open by HTML


def _beside(path: str, name: str) -> str:
    return posixpath.join(posixpath.dirname(path), unquote(name.partition("#")[0]))


def _package_path(data: bytes) -> str:
    found: list[str] = []

    def start(name: str, given: Attributes) -> None:
        if name == "rootfile" and "full-path" in given:
            found.append(given["full-path"])

    parse_xml(data, start=start, end=lambda _: None, text=lambda _: None)
    if not found:
        raise BadXml("its container names no package")
    return found[0]


def _package(data: bytes) -> _Package:
    package = _Package()
    titles: list[str] = []
    inside = False

    def start(name: str, given: Attributes) -> None:
        nonlocal inside
        inside = name == "title"
        if name == "item" and given.get("media-type") in _PAGES:
            package.files[given.get("id", "")] = given.get("href", "")
        elif name == "itemref" and given.get("linear") != "no":
            package.order.append(given.get("idref", ""))

    def end(name: str) -> None:
        nonlocal inside
        inside = False

    def text(words: str) -> None:
        if inside:
            titles.append(words)

    parse_xml(data, start=start, end=end, text=text)
    package.title = " ".join(normalise("".join(titles)).split())
    return package
