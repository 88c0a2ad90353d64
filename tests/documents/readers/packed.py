"""ZIP documents written by hand for the readers' tests: DOCX and EPUB."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

_WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def packed(members: Mapping[str, str | bytes]) -> bytes:
    """Return a ZIP file of ``members``."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def docx(body: str, *, members: Mapping[str, str] | None = None) -> bytes:
    """Return a DOCX whose document holds ``body`` (WordprocessingML, prefix ``w``)."""
    document = f"<w:document {_WORD}><w:body>{body}</w:body></w:document>"
    return packed({"word/document.xml": document, **(members or {})})


def part(name: str, inner: str) -> str:
    """Return a WordprocessingML part with root ``name``."""
    return f"<w:{name} {_WORD}>{inner}</w:{name}>"


def paragraph(text: str, properties: str = "") -> str:
    """Return a paragraph of one run."""
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


def row(*cells: str, properties: str = "") -> str:
    """Return a table row whose cells hold one paragraph each."""
    inner = "".join(f"<w:tc>{paragraph(cell)}</w:tc>" for cell in cells)
    return f"<w:tr><w:trPr>{properties}</w:trPr>{inner}</w:tr>"


def epub(chapters: Mapping[str, str], *, extra: Mapping[str, str] | None = None) -> bytes:
    """Return an EPUB of ``chapters`` (file name → XHTML) in their order, under ``OPS/``."""
    items = "".join(
        f'<item id="c{at}" href="{name}" media-type="application/xhtml+xml"/>'
        for at, name in enumerate(chapters)
    )
    spine = "".join(f'<itemref idref="c{at}"/>' for at in range(len(chapters)))
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f"<metadata><dc:title>A book</dc:title></metadata><manifest>{items}</manifest>"
        f"<spine>{spine}</spine></package>"
    )
    container = '<container><rootfiles><rootfile full-path="OPS/a.opf"/></rootfiles></container>'
    return packed(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": container,
            "OPS/a.opf": package,
            **{f"OPS/{name}": chapter for name, chapter in chapters.items()},
            **(extra or {}),
        }
    )
