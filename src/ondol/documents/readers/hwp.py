"""HWP 5 and HWPX (Hancom's formats) by unhwp: paragraphs, headings and tables in document order.

unhwp parses; the text is written here, so that tables are rows as in every other format. Page
headers and footers are left out, footnotes stand where they are referred to. HWP 3 is not read.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from ondol.core.errors import ReadError
from ondol.core.types import ReadDocument
from ondol.documents.readers.archive import Archive, damaged, encrypted
from ondol.documents.readers.plausible import hangul_shape
from ondol.documents.readers.reader_contract import (
    DocumentSource,
    ReadItems,
    ReadLimits,
    no_text,
    too_many_chars,
)
from ondol.documents.readers.sniff import HWP5
from ondol.documents.readers.tables import Blocks, Cell, spread
from ondol.language.normalise import normalise

HWP3 = b"HWP Document File V"
_FLAGS_AT = 36  # HWP 5.0 specification, FileHeader: signature 32, version 4, properties 4
_PASSWORD, _DISTRIBUTION, _CERTIFICATE, _DRM = 1 << 1, 1 << 2, 1 << 8, 1 << 4
_HWP3_PASSWORD_AT = 30 + 96  # HWP 3.0 specification: signature 30, then the document's information
_PROTECTED_KINDS = frozenset({12, 403})  # unhwp's stable ErrorKind: ENCRYPTED, DISTRIBUTION_…
_UNSUPPORTED_KINDS = frozenset({3, 4})
_TITLE_CHARS = 120

Node = Mapping[str, Any]


def read_hwp(source: DocumentSource, *, limits: ReadLimits) -> ReadItems:
    """Yield the document, or a failure: ``empty``, ``too_large``.

    Raises ``ReadError``: ``encrypted`` (password, distribution copy, rights management),
    ``damaged``, ``unsupported`` (HWP 3, or no unhwp for this machine).
    """
    _refuse_protected(source)
    if source.data.startswith(b"PK"):
        _refuse_packed(source, limits)
    document = _parsed(source)
    blocks = Blocks()
    for section in document["sections"]:
        _write(section["content"], blocks)
    text = blocks.text()
    lost = document.get("skipped_sections") or []
    if len(text) > limits.max_chars:
        yield too_many_chars(source.name, len(text), limits)
    elif not text and lost:
        raise damaged(source, f"none of its {len(lost)} sections can be read")
    elif not text:
        yield no_text(source.name)
    else:
        yield ReadDocument(
            source=source.name,
            title=_title(document["metadata"].get("title"), blocks, text) or source.stem,
            text=text,
            media_type="application/hwp+zip" if source.data[:2] == b"PK" else "application/x-hwp",
            warnings=(f"{len(lost)} sections could not be read and are missing",) if lost else (),
        )


def _refuse_protected(source: DocumentSource) -> None:
    data = source.data
    if data.startswith(HWP3):
        if any(data[_HWP3_PASSWORD_AT : _HWP3_PASSWORD_AT + 2]):
            raise encrypted(source)
        raise ReadError(
            f"{source.name!r} is an HWP 3 document; Ondol reads HWP 5 and HWPX",
            code="unsupported",
            hint="Open it in Hancom Office, save it as HWPX, and read that.",
            param=source.name,
        )
    at = data.find(HWP5)
    if at < 0 or len(data) < at + _FLAGS_AT + 4:
        return
    (flags,) = struct.unpack_from("<I", data, at + _FLAGS_AT)
    if flags & (_PASSWORD | _CERTIFICATE | _DRM):
        raise encrypted(source)
    if flags & _DISTRIBUTION:
        raise _restricted(source)


def _refuse_packed(source: DocumentSource, limits: ReadLimits) -> None:
    """Inflate what unhwp will inflate, under the limits: it has none of its own."""
    archive = Archive(source, limits=limits)
    if b"encryption-data" in (archive.read("META-INF/manifest.xml") or b""):
        raise encrypted(source)
    for name in archive.names:
        if name.endswith((".xml", ".hpf")):
            archive.read(name)


def _parsed(source: DocumentSource) -> dict[str, Any]:
    try:
        import unhwp
    except (ImportError, OSError) as error:
        raise ReadError(
            f"{source.name!r} is an HWP document and `unhwp` does not load here: {error}",
            code="unsupported",
            hint="Install `unhwp` (x86-64 Linux, macOS, Windows), or convert the file to PDF.",
            param=source.name,
        ) from error
    try:
        with unhwp.parse_bytes(source.data) as parsed:
            document: dict[str, Any] = json.loads(parsed.json)
    except unhwp.UnhwpError as error:
        raise _refused(source, int(error.kind), str(error)) from error
    return document


def _refused(source: DocumentSource, kind: int, message: str) -> ReadError:
    if kind in _PROTECTED_KINDS:
        return _restricted(source)
    reason = message.partition(": ")[2] or message
    if kind in _UNSUPPORTED_KINDS:
        return ReadError(
            f"{source.name!r} is no HWP document that Ondol reads: {reason[:200]}",
            code="unsupported",
            hint="Save it as HWPX or PDF and read that.",
            param=source.name,
        )
    return damaged(source, reason)


def _restricted(source: DocumentSource) -> ReadError:
    return ReadError(
        f"{source.name!r} is a distribution copy (배포용 문서): its text is encrypted",
        code="encrypted",
        hint="Ask its author for the original, or print it to PDF where that is allowed.",
        param=source.name,
    )


def _write(content: list[Node], blocks: Blocks) -> None:
    for block in content:
        if "Table" in block:
            table = block["Table"]
            rows = table["rows"]
            header = bool(rows) and bool(rows[0].get("is_header"))
            blocks.table(spread(_cells(rows)), header=header)
        elif "Paragraph" in block:
            paragraph = block["Paragraph"]
            level = int(paragraph["style"].get("heading_level") or 0)
            text = _words(paragraph)
            if level:
                blocks.heading(text, level)
            else:
                blocks.paragraph(text)


def _cells(rows: list[Node]) -> list[list[Cell]]:
    return [
        [
            Cell(
                " ".join(_words(paragraph) for paragraph in cell["content"]),
                down=int(cell["rowspan"]),
                across=int(cell["colspan"]),
            )
            for cell in row["cells"]
        ]
        for row in rows
    ]


def _words(paragraph: Node) -> str:
    return "".join(_inline(paragraph["content"])).rstrip()


def _inline(content: list[Any]) -> Iterator[str]:
    for piece in content:
        if piece == "LineBreak":
            yield "\n"
        elif isinstance(piece, dict):
            for kind, value in piece.items():
                if kind in {"Text", "Link"}:
                    yield str(value.get("text") or "")
                elif kind == "Footnote":
                    yield f" ({value})"
                elif kind == "Equation":
                    yield f" {value.get('script') or ''} "


def _title(named: Any, blocks: Blocks, text: str) -> str:
    title = " ".join(normalise(str(named or "")).split())
    if sum(map(str.isalpha, title)) > 1 and "\ufffd" not in title and not hangul_shape(title).odd:
        return title[:_TITLE_CHARS]
    if blocks.title:
        return blocks.title[:_TITLE_CHARS]
    for line in text.split("\n"):
        words = " ".join(line.split())
        if sum(map(str.isalpha, words)) > 1 and " |" not in words:
            return words[:_TITLE_CHARS]
    return ""
