"""CSV and TSV: each row below a header that names a text column is one record.

Without such a column a short file is one document, a table as rows; a long one is refused, because
a data set whose text column has another name must not become one document unnoticed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import count, islice

from ondol.core.types import ReadDocument
from ondol.text.normalise import normalise
from ondol.text.readers.contract import (
    ReadItem,
    ReadItems,
    ReadLimits,
    Source,
    failed,
    too_many_chars,
)
from ondol.text.readers.encoding import decode
from ondol.text.readers.record import NEEDS_TEXT, TEXT_FIELDS, BadRecord, shown
from ondol.text.readers.records import Numbered, read_each
from ondol.text.readers.table_rows import table_lines

_TABLE_ROWS = 2000
_TABLE_COLUMNS = 2


def read_csv(source: Source, *, limits: ReadLimits) -> ReadItems:
    """Yield one item for each row below the header row, or one table; ``.tsv`` files too."""
    text = normalise(decode(source.data, name=source.name).text)
    csv.field_size_limit(max(limits.max_chars, csv.field_size_limit()))
    first = text[: text.find("\n") + 1] or text
    delimiter = max("\t,;", key=first.count) if source.extension != ".tsv" else "\t"
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    header = [name.strip() for name in next(reader, [])]
    if not any(name.lower() in TEXT_FIELDS for name in header):
        yield _table(source, header, reader, limits)
        return
    yield from read_each(source, _rows(reader, header), limits=limits)


def _table(
    source: Source, header: list[str], reader: Iterator[list[str]], limits: ReadLimits
) -> ReadItem:
    """Return the whole file as one table, or why it is none."""
    try:
        rows = [header, *islice(reader, _TABLE_ROWS)]
    except csv.Error:
        rows = []
    columns = sum(sum(map(bool, row)) >= _TABLE_COLUMNS for row in rows)
    if columns < _TABLE_COLUMNS or len(rows) > _TABLE_ROWS:
        return failed(
            source.name,
            "bad_record",
            f"{source.name!r} has no text column; its first row is {shown(', '.join(header))!r}",
            hint=NEEDS_TEXT,
        )
    text = "\n".join(table_lines(rows))
    if len(text) > limits.max_chars:
        return too_many_chars(source.name, len(text), limits)
    return ReadDocument(
        source=source.name,
        title=source.stem,
        text=text,
        media_type="text/csv",
        warnings=(f"read as one table of {len(rows)} rows: no column is called text",),
    )


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
