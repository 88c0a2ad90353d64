"""How far a job is, as everybody is told: counts, pace, and when it will be done.

The results of a job as text, item by item: JSON Lines or CSV, never all of them in memory.

A JSON line has ``ordinal``, ``id``, ``status`` and ``result`` or ``error``, and what the task put
beside its result. A CSV row has a column for each field of the results; a cell that a spreadsheet
would take for a formula begins with an apostrophe.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ondol.jobs.job_rows import ItemResult, JobRow, JobState, Tally

PACE_ITEMS = 64


@dataclass(frozen=True, slots=True)
class JobView:
    """A job and its items by state. Times are Unix seconds.

    ``errors`` counts failed items by code; ``items_per_second`` and ``eta_seconds`` come from the
    last items that ended, and are ``None`` before the first and after the last.
    """

    id: str
    task: str
    state: JobState
    priority: int
    key: str
    total: int
    done: int
    failed: int
    cancelled: int
    running: int
    queued: int
    errors: Mapping[str, int]
    items_per_second: float | None
    eta_seconds: float | None
    created: float
    started: float | None
    finished: float | None
    request_id: str

    def without_estimates(self) -> JobView:
        """Return it without what changes by itself."""
        return replace(self, items_per_second=None, eta_seconds=None)


def view_of(row: JobRow, tally: Tally, *, rate: float | None) -> JobView:
    """Return the view; ``rate`` is in items that are worked, equal ones counted once."""
    return JobView(
        id=row.id,
        task=row.task,
        state=row.state,
        priority=row.priority,
        key=row.key,
        total=row.total,
        done=tally.done,
        failed=tally.failed,
        cancelled=tally.cancelled,
        running=tally.leased,
        queued=tally.queued,
        errors=tally.errors,
        items_per_second=rate,
        eta_seconds=tally.work / rate if rate else None,
        created=row.created,
        started=row.started,
        finished=row.finished,
        request_id=row.request_id,
    )


def rate_of(count: int, first: float, *, since: float, now: float) -> float | None:
    """Return items a second from the last ``count`` ends, of which the earliest was at ``first``.

    ``since`` is when the work was taken up, so that time with nobody at work does not count.
    """
    if not count:
        return None
    begun, ended = (first, count - 1) if count >= PACE_ITEMS else (since, count)
    return ended / max(now - begun, 1e-3)


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
