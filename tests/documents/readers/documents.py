"""Documents written by hand for the readers' tests: small, hostile where asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "data" / "documents"


def pdf(
    *,
    texts: Sequence[str] = (),
    contents: Sequence[str] = (),
    pages: int | None = None,
    title: str = "",
) -> bytes:
    """Return a PDF: a Helvetica text a page, a drawn content a page, or ``pages`` empty ones.

    Contents may show the image ``/Im1``, one grey pixel.
    """
    objects: dict[int, bytes] = {1: b"<< /Type /Catalog /Pages 2 0 R >>"}
    font = 3
    objects[font] = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
    kids: list[str] = []
    image = 4
    objects[image] = (
        b"<< /Type /XObject /Subtype /Image /Width 1 /Height 1 /ColorSpace /DeviceGray "
        b"/BitsPerComponent 8 /Length 1 >>\nstream\n\x80\nendstream"
    )
    number = 5
    for content in (*map(_content, texts), *(drawn.encode("latin-1") for drawn in contents)):
        objects[number] = b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content)
        objects[number + 1] = (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {number} 0 R "
            f"/Resources << /Font << /F1 {font} 0 R >> /XObject << /Im1 {image} 0 R >> >> >>"
        ).encode()
        kids.append(f"{number + 1} 0 R")
        number += 2
    if pages is not None:
        for _ in range(pages):
            objects[number] = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] >>"
            kids.append(f"{number} 0 R")
            number += 1
    objects[2] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>".encode()
    info = ""
    if title:
        objects[number] = f"<< /Title ({title}) >>".encode()
        info = f" /Info {number} 0 R"
    return assembled(objects, info)


def at(x: float, y: float, text: str) -> str:
    """Return the drawing of ``text`` with its baseline's left end at a point of the page."""
    escaped = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
    return f"BT /F1 10 Tf {x} {y} Td ({escaped}) Tj ET "


def stroke(x0: float, y0: float, x1: float, y1: float) -> str:
    """Return the drawing of a straight line."""
    return f"{x0} {y0} m {x1} {y1} l S "


def _content(text: str) -> bytes:
    shown = [
        line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
        for line in text.split("\n")
    ]
    body = "".join(f"({line}) Tj T* " for line in shown)
    return f"BT /F1 12 Tf 14 TL 72 720 Td {body}ET".encode("latin-1")


def assembled(objects: dict[int, bytes], trailer: str = "") -> bytes:
    """Return a PDF of numbered objects, 1 its catalogue; ``trailer`` holds more entries of that."""
    out = bytearray(b"%PDF-1.4\n")
    offsets: dict[int, int] = {}
    for number in sorted(objects):
        offsets[number] = len(out)
        out += b"%d 0 obj\n%s\nendobj\n" % (number, objects[number])
    start = len(out)
    size = max(objects) + 1
    out += b"xref\n0 %d\n0000000000 65535 f \n" % size
    for number in range(1, size):
        out += b"%010d 00000 n \n" % offsets[number]
    out += f"trailer\n<< /Size {size} /Root 1 0 R{trailer} >>\nstartxref\n{start}\n%%EOF\n".encode()
    return bytes(out)
