"""One PDF page: its text with tables as rows, and whether it is a scan, garbled or broken.

No image is decoded, however large its pixels: a scan shows by an image's place on the page. Only a
recogniser, where one is given, has scans drawn. Words that a line end cut are joined.

The words of a scanned page by the program ``tesseract``, where ``ingest.ocr`` asks for it.

One page at a time: drawn in grey at most ``_SIDE`` pixels long, handed over on standard input, and
given up after ``ocr_page_seconds``. A page whose images are larger than ``_MOST_PIXELS`` is not
drawn at all. What is recognised is a guess, and whoever reads it is told which pages are one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

import pypdfium2 as pdfium
import pypdfium2.raw as raw

from ondol.documents.readers.pdf_glyphs import Glyphs
from ondol.documents.readers.pdf_layout import LayoutPiece, page_pieces
from ondol.documents.readers.plausible import hangul_shape
from ondol.documents.readers.reader_contract import ReadLimits
from ondol.language.normalise import normalise

PROGRAM = "tesseract"
_DOTS = 300  # a inch, what tesseract is trained on
_SIDE = 3600  # pixels: an A4 page at 300 dots an inch is 3,508 high
_MOST_PIXELS = 100_000_000  # PDFium decodes an image whole before it is drawn small


@dataclass(frozen=True, slots=True)
class Recogniser:
    """Runs ``program`` on pages; ``languages`` as tesseract names them (``kor+eng``)."""

    program: str
    languages: str
    seconds: float

    def words(self, page: pdfium.PdfPage) -> str:
        """Return what the page says, or nothing: too large, too slow, or not readable."""
        if _pixels(page) > _MOST_PIXELS:
            return ""
        try:
            done = subprocess.run(
                [self.program, "stdin", "stdout", "-l", self.languages],
                input=_drawn(page),
                capture_output=True,
                timeout=self.seconds,
                check=False,
                env={**os.environ, "OMP_THREAD_LIMIT": "1"},
            )
        except (subprocess.TimeoutExpired, OSError, pdfium.PdfiumError):
            return ""
        return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def recogniser(limits: ReadLimits) -> Recogniser | None:
    """Return what recognises scans, or ``None`` where that is off or not installed."""
    if limits.ocr == "off":
        return None
    program = shutil.which(PROGRAM)
    if program is None:
        return None
    return Recogniser(program, limits.ocr_languages, limits.ocr_page_seconds)


def hint(limits: ReadLimits) -> str:
    """Return the remedy for a file of scans."""
    if limits.ocr == "off":
        return "Run OCR on it and read the result, or set ingest.ocr to 'tesseract'."
    if shutil.which(PROGRAM) is None:
        return f"ingest.ocr is {limits.ocr!r}, but no program {PROGRAM!r} is installed: install it."
    return (
        f"{PROGRAM} found no words in {limits.ocr_languages!r}: check ingest.ocr_languages (are they "
        "installed?) and ingest.ocr_page_seconds."
    )


def _pixels(page: pdfium.PdfPage) -> int:
    """Return how many pixels the page's largest image says it has; nothing is decoded."""
    largest = 0
    for image in page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE], max_depth=3):
        try:
            width, height = image.get_px_size()
        except pdfium.PdfiumError:
            continue
        largest = max(largest, width * height)
    return largest


def _drawn(page: pdfium.PdfPage) -> bytes:
    """Return the page as a grey picture (binary PGM)."""
    width, height = page.get_size()
    scale = min(_DOTS / 72, _SIDE / max(1.0, width, height))
    bitmap = page.render(scale=scale, grayscale=True, may_draw_forms=False)
    try:
        data = bytes(bitmap.buffer)
        rows = (
            data[at : at + bitmap.width]
            for at in range(0, bitmap.stride * bitmap.height, bitmap.stride)
        )
        return b"P5\n%d %d\n255\n" % (bitmap.width, bitmap.height) + b"".join(rows)
    finally:
        bitmap.close()


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
    pieces: Sequence[LayoutPiece] = ()
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
