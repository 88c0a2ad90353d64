"""CSV and TSV: each row below the header is one record."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import count

from ondol.text.normalise import normalise
from ondol.text.readers.contract import ReadItems, ReadLimits, Source, failed
from ondol.text.readers.encoding import decode
from ondol.text.readers.record import NEEDS_TEXT, TEXT_FIELDS, BadRecord, shown
from ondol.text.readers.records import Numbered, read_each


def read_csv(source: Source, *, limits: ReadLimits) -> ReadItems:
    """Yield one item for each row below the header row; ``.tsv`` and tab-separated files too."""
    text = normalise(decode(source.data, name=source.name).text)
    csv.field_size_limit(max(limits.max_chars, csv.field_size_limit()))
    first = text[: text.find("\n") + 1] or text
    delimiter = max("\t,;", key=first.count) if source.extension != ".tsv" else "\t"
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    header = [name.strip() for name in next(reader, [])]
    if not any(name.lower() in TEXT_FIELDS for name in header):
        yield failed(
            source.name,
            "bad_record",
            f"{source.name!r} has no text column; its first row is {shown(', '.join(header))!r}",
            hint=NEEDS_TEXT,
        )
        return
    yield from read_each(source, _rows(reader, header), limits=limits)


def _rows(reader: Iterator[list[str]], header: list[str]) -> Numbered:
    for number in count(1):
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield f"row {number}", _bad(f"is no CSV: {error}")
            continue
        if len(row) > len(header):
            yield f"row {number}", _bad(f"has {len(row)} cells under {len(header)} columns")
        elif any(cell.strip() for cell in row):
            yield f"row {number}", dict(zip(header, row, strict=False))


def _bad(message: str) -> BadRecord:
    return BadRecord("bad_record", message, "Quote cells that hold the separator.")
