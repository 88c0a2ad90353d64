"""Pages a second of processor time: the PDF reader against PDFium's bare text, PDF by PDF.

Both read the same bytes in this process, turn by turn; each figure is the best of the rounds. ``raw``
is every page's ``get_text_range`` and nothing else: no tables, columns, running lines, scans or script
statistics. A page is plain when the reader found no table and no columns on it; plain pages are also
timed alone, page by page, against the same pages' bare text.
Run: ``python benchmarks/readers.py [--rounds 3] [--profile] [PDF …]``.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import pypdfium2 as pdfium
from common import ROOT, data_set, report, table

from ondol.core.types import ReadDocument
from ondol.documents.readers import ReadLimits, read_bytes
from ondol.documents.readers.pdf_page import read_page

LIMITS = ReadLimits()
DEMO = ROOT / "examples" / "demo" / "work_rules_ko.pdf"
WANTED = 400
_LEAST_SECONDS = 0.05
"""A short file is read again until a round takes this long."""


def raw(data: bytes, only: Collection[int] | None = None) -> int:
    """Return the characters that PDFium gives for every page, or for those of ``only``."""
    chars = 0
    document = pdfium.PdfDocument(data)
    try:
        for index in only or range(len(document)):
            page = document[index]
            layer = page.get_textpage()
            chars += len(layer.get_text_range())
            layer.close()
            page.close()
    finally:
        document.close()
    return chars


def ours(data: bytes) -> int:
    """Return the characters that the reader stores."""
    (item,) = read_bytes(data, name="a.pdf", limits=LIMITS)
    return len(item.text) if isinstance(item, ReadDocument) else 0


def single_pages(data: bytes, only: Collection[int]) -> int:
    """Return the characters that the reader gives for the pages of ``only``, each for itself."""
    document = pdfium.PdfDocument(data)
    try:
        return sum(len(read_page(document, index).text) for index in only)
    finally:
        document.close()


def plain_pages(data: bytes) -> tuple[int, list[int]]:
    """Return how many pages there are, and which of them are plain text."""
    document = pdfium.PdfDocument(data)
    try:
        count = len(document)
        return count, [at for at in range(count) if not read_page(document, at).tables]
    finally:
        document.close()


def seconds(work: Callable[[], int]) -> float:
    """Return the processor seconds of one reading."""
    times = 0
    started = time.process_time()
    while (spent := time.process_time() - started) < _LEAST_SECONDS:
        work()
        times += 1
    return spent / times


def measured(path: Path, rounds: int) -> dict[str, Any]:
    """Return one PDF's figures."""
    data = path.read_bytes()
    count, plain = plain_pages(data)
    works: list[Callable[[], int]] = [partial(raw, data), partial(ours, data)]
    if plain:
        works += [partial(raw, data, plain), partial(single_pages, data, plain)]
    turns = [[seconds(work) for work in works] for _ in range(rounds)]
    bare, full, *alone = map(min, zip(*turns, strict=True))
    return {
        "file": path.name,
        "pages": count,
        "raw_pages_per_second": round(count / bare),
        "pages_per_second": round(count / full),
        "ratio": round(bare / full, 2),
        "added_ms_per_page": round(1000 * (full - bare) / count, 2),
        "plain_pages": len(plain),
        "plain_raw_pages_per_second": round(len(plain) / alone[0]) if alone else 0,
        "plain_pages_per_second": round(len(plain) / alone[1]) if alone else 0,
    }


def chosen(given: list[Path]) -> list[Path]:
    """Return the PDFs to read: those given, else the shared ones with text, and the demo's."""
    if given:
        return given
    kinds = ("ko_", "en_", "huge_619p")
    shared = sorted(data_set("pdfs").glob("*.pdf"))
    return [path for path in shared if path.name.startswith(kinds)] + [DEMO]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pdfs", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="show where the reader's time goes")
    options = parser.parse_args()
    paths = chosen(options.pdfs)
    if options.profile:
        profile(paths)
        return
    rows = [measured(path, options.rounds) for path in paths]
    table(
        (
            "PDF",
            "pages",
            "raw pages/s",
            "ours pages/s",
            "ratio",
            "added ms a page",
            "plain pages",
            "raw plain pages/s",
            "ours plain pages/s",
        ),
        [list(row.values()) for row in rows],
    )
    pages = sum(row["pages"] for row in rows)
    bare = sum(row["pages"] / row["raw_pages_per_second"] for row in rows)
    full = sum(row["pages"] / row["pages_per_second"] for row in rows)
    allowed = [row for row in rows if row["plain_raw_pages_per_second"] >= WANTED]
    reached = {row["file"]: row["plain_pages_per_second"] for row in allowed}
    report(
        {
            "pages": pages,
            "raw_pages_per_second": pages / bare,
            "pages_per_second": pages / full,
            "ratio": bare / full,
            "plain_allow_400": len(allowed),
            "plain_reach_400": sum(figure >= WANTED for figure in reached.values()),
            "plain_below_400": {
                name: figure for name, figure in reached.items() if figure < WANTED
            },
            "files": {row["file"]: row["pages_per_second"] for row in rows},
        },
        settings={"rounds": options.rounds},
    )


def profile(paths: list[Path]) -> None:
    """Print where the time of reading these files goes."""
    profiler = cProfile.Profile()
    for path in paths:
        data = path.read_bytes()
        profiler.enable()
        ours(data)
        profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
