"""One PDF page: its text with tables as rows, and whether it is a scan, garbled or broken.

No image is decoded, however large its pixels: a scan shows by an image's place on the page. Only a
recogniser, where one is given, has scans drawn. Words that a line end cut are joined.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pypdfium2 as pdfium
import pypdfium2.raw as raw

from ondol.text.normalise import normalise
from ondol.text.readers.pdf_glyphs import Glyphs
from ondol.text.readers.pdf_layout import Piece, page_pieces
from ondol.text.readers.pdf_ocr import Recogniser
from ondol.text.readers.plausible import hangul_shape

_LINE_HYPHEN = "\ufffe"  # PDFium's mark for a hyphen at a line end whose word it joined
_LETTERS = re.compile(r"[^\W\d_]*")
_CONTROLS = re.compile("[\x01-\x08\x0b\x0c\x0e-\x1f\ufeff\uffff]")
_GAPS = re.compile(r"[ \t]*\n\s*\n\s*")
_UNMAPPED = re.compile("[\ufffd\ue000-\uf8ff]")
_SCAN_CHARS = 200  # a page with fewer characters beside a large image is a scan
_SCAN_AREA = 0.5
_UNMAPPED_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class PageText:
    """One page: its text, how many tables it has, and what is wrong with it.

    ``scan``: an image with hardly any text; ``recognised``: a scan whose text is OCR's guess;
    ``garbled``: its fonts map to wrong characters; ``broken``: it could not be opened.
    """

    text: str
    tables: int = 0
    scan: bool = False
    recognised: bool = False
    garbled: bool = False
    broken: bool = False


def read_page(
    document: pdfium.PdfDocument, index: int, *, recogniser: Recogniser | None = None
) -> PageText:
    """Return page ``index`` (from 0); a scan is read by ``recogniser`` where one is given."""
    try:
        page = document[index]
    except pdfium.PdfiumError:
        return PageText("", broken=True)
    try:
        layer = page.get_textpage()
        try:
            text, tables = _text(page, layer)
        finally:
            layer.close()
        scan = len(text) < _SCAN_CHARS and _image_area(page) >= _SCAN_AREA
        if scan and recogniser is not None:
            words = stored(recogniser.words(page))
            if words:
                return PageText(words, recognised=True, garbled=_garbled(words))
        return PageText(text, tables=tables, scan=scan, garbled=_garbled(text))
    except pdfium.PdfiumError:
        return PageText("", broken=True)
    finally:
        page.close()


def _text(page: pdfium.PdfPage, layer: pdfium.PdfTextPage) -> tuple[str, int]:
    """Return the page's text in stored form and the number of its tables."""
    extracted = str(layer.get_text_range())
    pieces: Sequence[Piece] = ()
    if len(extracted) == layer.count_chars():  # else characters beyond U+FFFF shift the indices
        pieces = page_pieces(page, Glyphs(layer, extracted))
    tables = sum(any(piece.rows) for piece in pieces)
    if not tables:
        return stored(extracted), 0
    written: list[str] = []
    for piece in pieces:
        if any(piece.rows):
            written.append("\n\n" + "\n".join(piece.rows) + "\n\n")
        elif not piece.rows:
            written.append(extracted[piece.start : piece.end])
    return _GAPS.sub("\n\n", stored("".join(written))), tables


def stored(extracted: str) -> str:
    """Return what PDFium extracted in stored form, words joined that a line end had cut."""
    if _LINE_HYPHEN in extracted:
        extracted = _uncut(extracted)
    return _CONTROLS.sub("", normalise(extracted)).strip()


def _uncut(text: str) -> str:
    """Return ``text`` with its cut words joined; looks only around the marks, for speed."""
    done: list[str] = []
    before, *parts = text.split(_LINE_HYPHEN)
    for part in parts:
        start = len(before)
        while start and before[start - 1].isalpha():
            start -= 1
        found = _LETTERS.match(part)
        tail = found[0] if found else ""
        done.append(before[:start])
        before = _whole(before[start:], tail, text) + part[len(tail) :]
    return "".join([*done, before])


def _whole(head: str, tail: str, text: str) -> str:
    """Return the word cut into ``head`` and ``tail``: with its hyphen where the text has it so."""
    hyphened, joined = f"{head}-{tail}", head + tail
    if not head or not tail or hyphened in text:
        return hyphened
    return joined if joined in text or tail[0].islower() else hyphened


def _garbled(text: str) -> bool:
    """Whether the script's own statistics say that these are not the characters that are drawn."""
    if text.isascii():
        return False
    unmapped = len(_UNMAPPED.findall(text))
    ink = len("".join(text.split())) if unmapped else 0
    return (ink > 20 and unmapped > _UNMAPPED_SHARE * ink) or hangul_shape(text).garbled


def _image_area(page: pdfium.PdfPage) -> float:
    """Return the largest image's share of the page, from its placement, without decoding it."""
    width, height = page.get_size()
    largest = 0.0
    for image in page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE], max_depth=3):
        try:
            left, bottom, right, top = image.get_bounds()
        except pdfium.PdfiumError:
            continue
        largest = max(largest, abs(right - left) * abs(top - bottom))
    return largest / max(1.0, float(width * height))
