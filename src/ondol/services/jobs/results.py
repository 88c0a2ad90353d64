"""The results of a job as text, item by item: JSON Lines or CSV, never all of them in memory.

A JSON line has ``ordinal``, ``id``, ``status`` and ``result`` or ``error``, and what the task put
beside its result. A CSV row has a column for each field of the results; a cell that a spreadsheet
would take for a formula begins with an apostrophe.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from ondol.store.job_rows import ItemResult

ResultFormat = Literal["jsonl", "csv"]
PAGE = 200
MOST_COLUMNS = 100
_FIXED = ("ordinal", "id", "status", "attempts", "code", "message", "hint")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def line_of(item: ItemResult) -> dict[str, Any]:
    """Return an item's outcome as JSON has it."""
    line: dict[str, Any] = {"ordinal": item.ordinal, "id": item.id, "status": item.state}
    if item.result is not None:
        line |= json.loads(item.result)
    if item.error is not None:
        line["error"] = asdict(item.error)
    line["attempts"] = item.attempts
    if item.started is not None and item.finished is not None:
        line["seconds"] = round(item.finished - item.started, 3)
    if item.same_as is not None:
        line["same_as"] = item.same_as
    return line


def json_lines(items: Sequence[ItemResult]) -> str:
    """Return one line for each item."""
    return "".join(json.dumps(line_of(item), ensure_ascii=False) + "\n" for item in items)


class CsvRows:
    """Rows under fixed columns and one for each of ``keys``, the fields of the results."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = keys

    @property
    def head(self) -> str:
        return _csv([(*_FIXED, *(f"result.{key}" for key in self._keys))])

    def rows(self, items: Sequence[ItemResult]) -> str:
        """Return one row for each item."""
        return _csv([tuple(self._cells(item)) for item in items])

    def _cells(self, item: ItemResult) -> Iterator[Any]:
        error = item.error
        yield from (item.ordinal, _safe(item.id), item.state, item.attempts)
        yield from ("", "", "") if error is None else (error.code, _safe(error.message), error.hint)
        result: Mapping[str, Any] = json.loads(item.result)["result"] if item.result else {}
        for key in self._keys:
            yield _cell(result.get(key))


def pages(
    read: Callable[[int, int], Sequence[ItemResult]], *, after: int, limit: int | None
) -> Iterator[Sequence[ItemResult]]:
    """Yield items page by page; ``read`` takes the ordinal to go on after and how many."""
    left = limit
    while left is None or left > 0:
        wanted = PAGE if left is None else min(PAGE, left)
        page = read(after, wanted)
        if page:
            yield page
        if len(page) < wanted:
            return
        after = page[-1].ordinal
        left = None if left is None else left - len(page)


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, str):
        return _safe(value)
    return json.dumps(value, ensure_ascii=False)


def _safe(text: str) -> str:
    """Defuse what spreadsheets run (OWASP, CSV injection)."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()
