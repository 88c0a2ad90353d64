"""What a file is, by its first bytes and its extension; the bytes win over the name."""

from __future__ import annotations

import re
from typing import Literal

from ondol.core.errors import ReadError
from ondol.documents.readers.reader_contract import DocumentSource

Kind = Literal[
    "pdf", "hwp", "docx", "epub", "html", "markdown", "text", "jsonl", "json", "csv", "tsv"
]

EXTENSIONS: dict[str, Kind] = {
    ".pdf": "pdf",
    ".hwp": "hwp",
    ".hwpx": "hwp",
    ".docx": "docx",
    ".epub": "epub",
    ".txt": "text",
    ".text": "text",
    ".log": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
}
SUPPORTED = ", ".join(EXTENSIONS)

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"BM", "a BMP image"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an OLE file (DOC, XLS or PPT)"),
    (b"HWP Document File", "an HWP 3 document"),
    (b"{\\rtf", "an RTF document"),
    (b"%!PS", "a PostScript file"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"\x7fELF", "an ELF program"),
    (b"MZ", "a Windows program"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"ID3", "an MP3 recording"),
    (b"OggS", "an Ogg recording"),
    (b"GGUF", "a GGUF model"),
    (b"PAR1", "a Parquet file"),
)
_AMBIGUOUS = (b"BM", b"MZ", b"ID3", b"PAR1", b"OggS", b"GGUF", b"BZh")  # could begin a text
_ZIPPED: tuple[tuple[bytes, str], ...] = (
    (b"application/hwp+zip", "an HWPX document"),
    (b"word/", "a DOCX document"),
    (b"xl/", "an XLSX workbook"),
    (b"ppt/", "a PPTX presentation"),
    (b"application/epub+zip", "an EPUB book"),
    (b"application/vnd.oasis.opendocument", "an OpenDocument file"),
)
_PACKED: dict[str, Kind] = {
    "an HWPX document": "hwp",
    "a DOCX document": "docx",
    "an EPUB book": "epub",
}
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
HWP5 = b"HWP Document File\x00"  # the first words of the stream FileHeader
_LOCKED_OFFICE = "EncryptedPackage".encode("utf-16-le")
_BINARY: dict[Kind, str] = {"pdf": "a PDF", "hwp": "an HWP", "docx": "a DOCX", "epub": "an EPUB"}
_PDF_WINDOW = 1024
_HTML = re.compile(
    rb"\s*(?:<\?xml[^>]{0,200}\?>\s*)?(?:<!--.{0,400}?-->\s*)?<(?:!doctype html|html[\s>])",
    re.I | re.S,
)
_CONVERT = "Convert it to PDF or plain text first."


def kind_of(source: DocumentSource) -> Kind:
    """Return how to read ``source``.

    Raises ``ReadError``: ``empty`` for no bytes, ``wrong_type`` when the bytes contradict a known
    extension, ``unsupported`` for formats Ondol does not read, ``encrypted`` for a locked Office
    file, ``damaged`` for a PDF, HWP, DOCX or EPUB without its header.
    """
    if not source.data:
        raise ReadError(
            f"{source.name!r} is empty (0 bytes)",
            code="empty",
            hint="Check that the file was written or uploaded completely.",
            param=source.name,
        )
    named = EXTENSIONS.get(source.extension)
    if b"%PDF-" in source.data[:_PDF_WINDOW]:
        return "pdf"
    packed = _container(source, named)
    if packed is not None:
        return packed
    binary = binary_kind(source.data)
    if named in _BINARY:
        raise _misnamed(source, _BINARY[named], binary)
    if binary is not None:
        raise _binary(source, binary, known=named is not None)
    if named is not None:
        return named
    if _looks_binary(source.data):
        raise _binary(source, "binary data", known=False)
    return "html" if _HTML.match(source.data[:4096]) else "text"


def _container(source: DocumentSource, named: Kind | None) -> Kind | None:
    """Return the kind of a ZIP or OLE file that Ondol reads; its name helps where bytes do not."""
    data = source.data
    if data.startswith(b"HWP Document File"):
        return "hwp"
    if data.startswith(_OLE):
        if HWP5 in data or named == "hwp":
            return "hwp"
        if _LOCKED_OFFICE in data:
            raise ReadError(
                f"{source.name!r} is an encrypted Office document and needs a password",
                code="encrypted",
                hint="Save a copy without a password and read that.",
                param=source.name,
            )
    if data.startswith(b"PK\x03\x04"):
        found = binary_kind(data)
        if found in _PACKED:
            return _PACKED[found]
        return named if found == "a ZIP archive" and named in _PACKED.values() else None
    return None


def binary_kind(data: bytes) -> str | None:
    """Return the name of the binary format whose magic bytes ``data`` starts with, if known."""
    if data.startswith(b"PK\x03\x04"):
        window = data[:65536]
        return next((name for mark, name in _ZIPPED if mark in window), "a ZIP archive")
    if data.startswith(b"RIFF") and data[8:12] in {b"WEBP", b"WAVE", b"AVI "}:
        return f"a {data[8:12].decode().strip()} file"
    if data[4:8] == b"ftyp":
        return "an MP4 or HEIC file"
    for magic, name in _MAGIC:
        if data.startswith(magic) and (magic not in _AMBIGUOUS or _looks_binary(data)):
            return name
    return None


def _looks_binary(data: bytes) -> bool:
    """Whether the first bytes hold NULs that are not those of UTF-16."""
    head = data[:8192]
    if b"\x00" not in head or head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return False
    even, odd = head[0::2].count(0), head[1::2].count(0)
    return not (max(even, odd) > len(head) // 8 and min(even, odd) * 8 <= max(even, odd))


def _misnamed(source: DocumentSource, format: str, binary: str | None) -> ReadError:
    if binary is None and not _looks_binary(source.data) and _is_text(source.data[:4096]):
        binary = "an HTML page" if _HTML.match(source.data[:4096]) else "plain text"
    if binary is not None:
        return ReadError(
            f"{source.name!r} is named as {format} but is {binary}",
            code="wrong_type",
            hint="Give the file its right extension, or convert it to PDF.",
            param=source.name,
        )
    return ReadError(
        f"{source.name!r} does not begin as {format} file does",
        code="damaged",
        hint="Fetch or export the file again; it is cut off or overwritten.",
        param=source.name,
    )


def _is_text(head: bytes) -> bool:
    printable = sum(byte >= 32 or byte in b"\t\r\n" for byte in head)
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return False
    return printable == len(head)


def _binary(source: DocumentSource, binary: str, *, known: bool) -> ReadError:
    if known:
        return ReadError(
            f"{source.name!r} is named as {source.extension} but is {binary}",
            code="wrong_type",
            hint=f"Give the file its right extension. {_CONVERT}",
            param=source.name,
        )
    return ReadError(
        f"{source.name!r} is {binary}; Ondol reads {SUPPORTED}",
        code="unsupported",
        hint=_CONVERT,
        param=source.name,
    )
