"""Scans through a program that stands in for ``tesseract``: what it is given, and what its words become."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.documents.readers.documents import at, pdf

from ondol.core.types import ReadDocument
from ondol.documents.readers import ReadFailure, ReadItem, ReadLimits, read_bytes

LIMITS = ReadLimits(ocr="tesseract", ocr_languages="kor", ocr_page_seconds=10.0)
SCAN = "q 612 0 0 792 0 0 cm /Im1 Do Q "
READS = """#!/bin/sh
test "$*" = "stdin stdout -l kor" || exit 3
head -c 10 | tr '\\n' ' '
cat > /dev/null
echo "온돌은 방바닥을 데운다."
"""
HANGS = "#!/bin/sh\nexec tail -f /dev/null\n"
FAILS = "#!/bin/sh\necho nonsense; exit 1\n"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-in lies; the only folder with a ``tesseract``."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder / "tesseract"


def installed(program: Path, script: str) -> None:
    program.write_text(script, "utf-8")
    program.chmod(0o755)


def only(limits: ReadLimits, *contents: str) -> ReadItem:
    (item,) = read_bytes(pdf(contents=contents), name="a.pdf", limits=limits)
    return item


def test_scanned_pages_are_recognised_and_named(program: Path) -> None:
    installed(program, READS)
    found = only(LIMITS, at(72, 740, "A page of words."), SCAN)
    assert isinstance(found, ReadDocument)
    first, second = (found.text[page.start : page.end] for page in found.pages)
    assert first == "A page of words."
    assert second == "P5 2550 33온돌은 방바닥을 데운다."
    assert found.warnings == ("1 of 2 pages are images whose words OCR guessed: 2",)


def test_ocr_is_off_unless_asked_for(program: Path) -> None:
    installed(program, READS)
    refused = only(ReadLimits(), SCAN)
    assert isinstance(refused, ReadFailure)
    assert refused.error.code == "image_only"
    assert "ingest.ocr" in str(refused.error.hint)


@pytest.mark.parametrize(
    ("script", "says"), [(HANGS, "ocr_page_seconds"), (FAILS, "ocr_languages"), ("", "install it")]
)
def test_a_page_that_cannot_be_recognised_stays_a_scan(
    program: Path, script: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if script:
        installed(program, script)
    else:
        monkeypatch.setenv("PATH", str(program.parent))
    refused = only(replace(LIMITS, ocr_page_seconds=0.2), SCAN)
    assert isinstance(refused, ReadFailure)
    assert refused.error.code == "image_only"
    assert says in str(refused.error.hint)


def test_a_huge_image_is_not_drawn(program: Path) -> None:
    installed(program, READS)
    huge = pdf(contents=[SCAN]).replace(b"/Width 1 /Height 1 ", b"/Width 35000 /Height 35000 ")
    (item,) = read_bytes(huge, name="a.pdf", limits=LIMITS)
    assert isinstance(item, ReadFailure)
    assert item.error.code == "image_only"
