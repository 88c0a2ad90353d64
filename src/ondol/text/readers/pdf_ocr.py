"""The words of a scanned page by the program ``tesseract``, where ``ingest.ocr`` asks for it.

One page at a time: drawn in grey at most ``_SIDE`` pixels long, handed over on standard input, and
given up after ``ocr_page_seconds``. A page whose images are larger than ``_MOST_PIXELS`` is not
drawn at all. What is recognised is a guess, and whoever reads it is told which pages are one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

import pypdfium2 as pdfium
import pypdfium2.raw as raw

from ondol.text.readers.contract import ReadLimits

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
