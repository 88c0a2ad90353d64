"""Hostile files of our own, one for each kind that the readers must survive, and what each must give.

Everything is written here by hand: no byte comes from anybody's file. A few kilobytes each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from tests.documents.readers.documents import assembled, at, pdf
from tests.documents.readers.packed import packed

WORDS = "A sentence of plain words that fills a line of this page."
KOREAN = "제60조(연차 유급휴가) 사용자는 1년간 80퍼센트 이상 출근한 근로자에게 휴가를 주어야 한다. "
CYRILLIC = "Съешь же ещё этих мягких французских булок, да выпей чаю. " * 4
_WHOLE_PAGE = "q 612 0 0 792 0 0 cm /Im1 Do Q "
_PADDING = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")
_PERMISSIONS = -44
MOST_CHARS = 300_000
"""The limit on characters that these files are read under; inflating stops at eight times as many."""


@dataclass(frozen=True, slots=True)
class Hostile:
    """A file and what it must give: the ``code`` it is refused with, or a text that it ``says``."""

    data: bytes
    code: str = ""
    says: str = ""
    warns: str = ""


def hostile_files() -> Mapping[str, Hostile]:
    """Return every hostile file by its name."""
    return {
        **_broken(),
        **_active_and_endless(),
        **_pictures(),
        **_locked(),
        **_texts(),
        **_packed(),
    }


def form_that_draws_itself(*, times: int) -> bytes:
    """Return a page with a form that draws itself: twice is for ever, as every level doubles it."""
    drawn = b"/X1 Do " * times
    form = (
        b"<< /Type /XObject /Subtype /Form /BBox [0 0 612 792] /Length %d /Resources "
        b"<< /XObject << /X1 6 0 R >> >> >>\nstream\n%s\nendstream" % (len(drawn), drawn)
    )
    shown = _stream(at(72, 720, WORDS) + "/X1 Do")
    return assembled(
        {
            1: b"<< /Type /Catalog /Pages 2 0 R >>",
            2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            **_page(3, shown, extra=b" /XObject << /X1 6 0 R >>", form=form),
        }
    )


def _broken() -> dict[str, Hostile]:
    whole = pdf(texts=[WORDS])
    start = whole.rindex(b"startxref")
    return {
        "zero.pdf": Hostile(b"", "empty"),
        "header_only.pdf": Hostile(b"%PDF-1.7\n%%EOF\n", "damaged"),
        "cut_off.pdf": Hostile(whole[: len(whole) // 4], "damaged"),
        "noise.pdf": Hostile(b"%PDF-1.4\n" + hashlib.sha256(b"x").digest() * 300, "damaged"),
        "jpeg.pdf": Hostile(b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(900), "wrong_type"),
        "no_pages.pdf": Hostile(pdf(pages=0), "empty"),
        "no_contents.pdf": Hostile(pdf(pages=1), "empty"),
        "bad_xref_offset.pdf": Hostile(whole[:start] + b"startxref\n7\n%%EOF\n", says=WORDS),
        "xref_that_names_itself.pdf": Hostile(
            whole.replace(b"/Root 1 0 R", b"/Root 1 0 R /Prev %d" % whole.rindex(b"xref\n0 ")),
            says=WORDS,
        ),
        "wrong_letters.pdf": Hostile(_garbled(), "unreadable"),
    }


def _active_and_endless() -> dict[str, Hostile]:
    script = b"<< /S /JavaScript /JS (while (true) { app.alert\\(1\\); }) >>"
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /AA << /O 4 0 R >> >>"
    return {
        "script.pdf": Hostile(
            assembled(
                {
                    1: b"<< /Type /Catalog /Pages 2 0 R /OpenAction 4 0 R >>",
                    2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
                    3: page,
                    4: script,
                }
            ),
            "empty",
        ),
        "tree_that_names_itself.pdf": Hostile(
            assembled(
                {
                    1: b"<< /Type /Catalog /Pages 2 0 R >>",
                    2: b"<< /Type /Pages /Kids [3 0 R 2 0 R] /Count 2 >>",
                    **_page(3, _stream(at(72, 720, WORDS))),
                }
            ),
            says=WORDS,
            warns="could not be opened: 2",
        ),
        "form_that_draws_itself.pdf": Hostile(form_that_draws_itself(times=1), says=WORDS),
        "ten_thousand_pages.pdf": Hostile(pdf(pages=10_000), "too_many_pages"),
        "unclosed.pdf": Hostile(pdf(contents=["q " * 20_000 + at(72, 720, WORDS)]), says=WORDS),
    }


def _pictures() -> dict[str, Hostile]:
    large = pdf(contents=[_WHOLE_PAGE]).replace(
        b"/Width 1 /Height 1 /ColorSpace /DeviceGray /BitsPerComponent 8 /Length 1 >>\nstream\n\x80\n",
        b"/Width 35000 /Height 35000 /ColorSpace /DeviceGray /BitsPerComponent 1 /Filter "
        b"/RunLengthDecode /Length 12000 >>\nstream\n" + b"\x81\x00" * 6000 + b"\n",
    )
    wide = pdf(contents=["q 200000 0 0 200000 0 0 cm /Im1 Do Q "]).replace(
        b"/MediaBox [0 0 612 792]", b"/MediaBox [0 0 200000 200000]"
    )
    mixed = pdf(contents=[at(72, 720, WORDS), _WHOLE_PAGE, _WHOLE_PAGE])
    return {
        "bitmap_35000px.pdf": Hostile(large, "image_only"),
        "page_of_70_metres.pdf": Hostile(wide, "image_only"),
        "scans.pdf": Hostile(pdf(contents=[_WHOLE_PAGE] * 3), "image_only"),
        "some_scans.pdf": Hostile(mixed, says=WORDS, warns="images without a text layer: 2, 3"),
    }


def _locked() -> dict[str, Hostile]:
    hwp3 = bytearray(b"HWP Document File V3.00 \x1a\x01\x02\x03\x04\x05" + bytes(1200))
    open_hwp3 = bytes(hwp3)
    hwp3[126:128] = b"\x01\x00"
    return {
        "opens_without_a_word.pdf": Hostile(_encrypted(""), says=WORDS),
        "needs_a_word.pdf": Hostile(_encrypted("secret"), "encrypted"),
        "locked.hwp": Hostile(bytes(hwp3), "encrypted"),
        "old.hwp": Hostile(open_hwp3, "unsupported"),
    }


def _texts() -> dict[str, Hostile]:
    korean = KOREAN * 3
    naughty = ["\u202etxt.exe", "Ω≈ç√∫˜µ", "👩‍👩‍👧", "'; DROP TABLE documents; --", "\u0000null", "{{7*7}}", "\ud800 alone"]  # fmt: skip
    files = {
        f"korean_{encoding}.txt": Hostile(korean.encode(encoding), says=KOREAN.strip())
        for encoding in (
            "cp949",
            "euc_kr",
            "utf-8-sig",
            "utf-16",
            "utf-16-le",
            "utf-16-be",
            "utf-32",
        )
    }
    table = "이름,평점\n온돌방 🔥,5\n".encode("utf-16")
    return {
        **files,
        "decomposed.txt": Hostile("한글".encode(), says="한글"),
        "cyrillic_koi8.txt": Hostile(CYRILLIC.encode("koi8-r"), "bad_encoding"),
        "noise.txt": Hostile(hashlib.shake_256(b"y").digest(4000), "wrong_type"),
        "half_a_mark.txt": Hostile(b"\xff\xfeA", "bad_encoding"),
        "naughty.json": Hostile(json.dumps(naughty).encode(), says="DROP TABLE documents"),
        "ratings_utf16.csv": Hostile(table, says="온돌방 🔥"),
        "deep.json": Hostile(b"[" * 100_000, "damaged"),
        "deep.html": Hostile(b"<div>" * 5_000 + WORDS.encode(), says=WORDS),
    }


def _packed() -> dict[str, Hostile]:
    bomb = packed({"word/document.xml": b"<a>" + b" " * 9 * MOST_CHARS})
    locked = "<manifest><file-entry><encryption-data/></file-entry></manifest>"
    entity = '<!DOCTYPE a [<!ENTITY x "yyyyyyyyyy">]><a>&x;</a>'
    hwpx = {"mimetype": "application/hwp+zip"}
    return {
        "bomb.docx": Hostile(bomb, "too_large"),
        "entities.docx": Hostile(packed({"word/document.xml": entity}), "damaged"),
        "locked.hwpx": Hostile(packed({**hwpx, "META-INF/manifest.xml": locked}), "encrypted"),
    }


def _page(
    number: int, content: bytes, *, extra: bytes = b"", form: bytes = b""
) -> dict[int, bytes]:
    """Return a page of 612 × 792 points with its content, font, and form object 6 where given."""
    font = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
    page = (
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >>%s >> >>" % extra
    )
    objects = {number: page, 4: content, 5: font}
    return {**objects, 6: form} if form else objects


def _stream(content: str, *, key: bytes = b"") -> bytes:
    data = content.encode("latin-1")
    if key:
        data = _rc4(key, data)
    return b"<< /Length %d >>\nstream\n%s\nendstream" % (len(data), data)


def _garbled() -> bytes:
    """Return a page whose font says that its Latin letters are syllables nobody writes."""
    rows = "".join(f"<{code:02X}> <{0xB000 + 37 * code:04X}>\n" for code in range(33, 127))
    mapping = (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def /CMapType 2 "
        "def 1 begincodespacerange <00> <FF> endcodespacerange 94 beginbfchar\n"
        f"{rows}endbfchar endcmap end end"
    )
    return assembled(
        {
            1: b"<< /Type /Catalog /Pages 2 0 R >>",
            2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            **_page(3, _stream(at(72, 720, WORDS) + at(72, 700, WORDS))),
            5: b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /ToUnicode 6 0 R >>",
            6: _stream(mapping),
        }
    )


def _encrypted(word: str) -> bytes:
    """Return a page under the standard security handler, revision 2 (PDF 32000-1, 7.6.3)."""
    identity = bytes(range(16))
    user = (word.encode() + _PADDING)[:32]
    owner = _rc4(hashlib.md5((b"owner" + _PADDING)[:32]).digest()[:5], user)
    permissions = _PERMISSIONS.to_bytes(4, "little", signed=True)
    key = hashlib.md5(user + owner + permissions + identity).digest()[:5]
    of_stream = hashlib.md5(key + (4).to_bytes(3, "little") + bytes(2)).digest()[:10]
    unlocked = _rc4(key, _PADDING)
    handler = f"<< /Filter /Standard /V 1 /R 2 /O <{owner.hex()}> /U <{unlocked.hex()}> /P {_PERMISSIONS} >>"
    return assembled(
        {
            1: b"<< /Type /Catalog /Pages 2 0 R >>",
            2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            **_page(3, _stream(at(72, 720, WORDS), key=of_stream)),
            6: handler.encode(),
        },
        f" /Encrypt 6 0 R /ID [<{identity.hex()}> <{identity.hex()}>]",
    )


def _rc4(key: bytes, data: bytes) -> bytes:
    state = list(range(256))
    j = 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    out = bytearray()
    i = j = 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)
