"""The rows of finished requests: put in by the batch, summed up by group, thrown out when old.

Owns the tables ``analysis_metrics`` (every request) and ``generation_metrics`` (those that got to
the generator, under the same id). Each method is one transaction of the shared ``Database``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ondol.core.events import RequestRecord
from ondol.store.database import Database
from ondol.store.migrations import Migration

# One row for every request offered to a lane; ``generation_metrics`` has a second one, under the
# same id, for those that got to the generator. Ids only grow: the lowest is the oldest.
_TABLES = (
    """
    CREATE TABLE analysis_metrics(
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        time REAL NOT NULL,
        request_id TEXT NOT NULL,
        lane TEXT NOT NULL,
        model TEXT NOT NULL,
        form TEXT NOT NULL,
        outcome TEXT NOT NULL,
        code TEXT NOT NULL,
        queue_ms REAL NOT NULL,
        tokenize_ms REAL NOT NULL,
        retrieve_ms REAL NOT NULL,
        inference_ms REAL NOT NULL,
        total_ms REAL NOT NULL,
        tokens_in INTEGER NOT NULL,
        tokens_out INTEGER NOT NULL,
        tokens_cached INTEGER NOT NULL,
        deadline_ms REAL,
        deadline_met INTEGER,
        predicted_ms REAL
    )
    """,
    "CREATE INDEX analysis_metrics_by_time ON analysis_metrics(time)",
    """
    CREATE TABLE generation_metrics(
        id INTEGER PRIMARY KEY REFERENCES analysis_metrics(id) ON DELETE CASCADE,
        time REAL NOT NULL,
        request_id TEXT NOT NULL,
        lane TEXT NOT NULL,
        model TEXT NOT NULL,
        form TEXT NOT NULL,
        outcome TEXT NOT NULL,
        queue_ms REAL NOT NULL,
        prefill_time_ms REAL,
        decode_time_ms REAL,
        ttft_ms REAL,
        tps REAL,
        tpot_ms REAL,
        itl_p50_ms REAL,
        itl_p99_ms REAL,
        total_ms REAL NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL,
        cached_tokens INTEGER NOT NULL,
        deadline_ms REAL,
        deadline_met INTEGER,
        predicted_ms REAL
    )
    """,
    "CREATE INDEX generation_metrics_by_time ON generation_metrics(time)",
)
MIGRATIONS = (Migration(2, _TABLES),)

Group = Literal["all", "hour", "lane", "model"]

_KEYS: Mapping[Group, str] = {
    "all": "''",
    "hour": "CAST(time / 3600 AS INTEGER) * 3600",
    "lane": "lane",
    "model": "model",
}
_QUANTILES = (50, 95, 99)
# name of the percentiles → (table, column)
_SPREADS = {
    "queue_ms": ("analysis_metrics", "queue_ms"),
    "total_ms": ("analysis_metrics", "total_ms"),
    "ttft_ms": ("generation_metrics", "ttft_ms"),
    "tpot_ms": ("generation_metrics", "tpot_ms"),
}
_ANALYSIS = (
    "id",
    *("time", "request_id", "lane", "model", "form", "outcome", "code"),
    *("queue_ms", "tokenize_ms", "retrieve_ms", "inference_ms", "total_ms"),
    *("tokens_in", "tokens_out", "tokens_cached"),
    *("deadline_ms", "deadline_met", "predicted_ms"),
)
_GENERATION = (
    "id",
    *("time", "request_id", "lane", "model", "form", "outcome"),
    *("queue_ms", "prefill_time_ms", "decode_time_ms", "ttft_ms", "tps", "tpot_ms"),
    *("itl_p50_ms", "itl_p99_ms", "total_ms"),
    *("prompt_tokens", "completion_tokens", "cached_tokens"),
    *("deadline_ms", "deadline_met", "predicted_ms"),
)
_COUNTS = (
    "count(*) AS requests",
    *(f"sum(outcome = '{o}') AS {o}" for o in ("ok", "refused", "failed", "cancelled", "deadline")),
    "count(deadline_met) AS promised",
    "sum(deadline_met IS NOT NULL AND outcome <> 'refused') AS promised_admitted",
    "sum(deadline_met IS 1) AS kept",
    "sum(tokens_in) AS tokens_in",
    "sum(tokens_out) AS tokens_out",
)


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Nearest-rank percentiles of what was measured."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class MetricTotals:
    """What one group of requests adds up to; ``key`` is its lane, model or hour (Unix seconds).

    ``promised`` had a deadline that could be judged, ``promised_admitted`` those of them that were
    not refused, ``kept`` those whose deadline was met. ``prompt_tokens`` and ``cached_tokens`` are
    of generations only.
    """

    key: str | int
    requests: int
    ok: int
    refused: int
    failed: int
    cancelled: int
    deadline: int
    promised: int
    promised_admitted: int
    kept: int
    tokens_in: int
    tokens_out: int
    prompt_tokens: int
    cached_tokens: int
    percentiles: Mapping[str, Percentiles]


class MetricStore:
    """The metric tables of one database; thread-safe as the database is."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def insert(self, records: Sequence[RequestRecord]) -> None:
        """Store ``records`` in one transaction, oldest first."""
        with self._database.write() as connection:
            last = connection.execute(
                "SELECT seq FROM sqlite_sequence WHERE name = 'analysis_metrics'"
            ).fetchone()
            numbered = list(enumerate(records, start=(last[0] if last else 0) + 1))
            connection.executemany(
                _insert("analysis_metrics", _ANALYSIS),
                [_analysis_row(number, record) for number, record in numbered],
            )
            connection.executemany(
                _insert("generation_metrics", _GENERATION),
                [_generation_row(n, r) for n, r in numbered if _reached_generator(r)],
            )

    def trim(self, *, before: float, keep: int, at_most: int = 2000) -> int:
        """Delete rows that ended before ``before`` (Unix seconds) or are not among the last ``keep``.

        At most about ``at_most`` a call, so that no other writer waits long; returns how many went.
        """
        gone = 0
        with self._database.write() as connection:
            for condition, bound in (
                ("id <= (SELECT max(id) FROM analysis_metrics) - ?", keep),
                ("time < ?", before),
            ):
                gone += connection.execute(
                    "DELETE FROM analysis_metrics WHERE id IN "
                    f"(SELECT id FROM analysis_metrics WHERE {condition} LIMIT ?)",
                    (bound, at_most - gone),
                ).rowcount
        return gone

    def totals(self, *, since: float, until: float, by: Group = "all") -> list[MetricTotals]:
        """Return the sums of requests that ended in ``[since, until)``, by group, keys ascending."""
        span = (since, until)
        with self._database.read() as connection:
            spreads = dict(_spreads(connection, span, by))
            generations = {
                row[0]: row[1:]
                for row in connection.execute(
                    f"SELECT {_KEYS[by]} AS key, sum(prompt_tokens), sum(cached_tokens) "
                    "FROM generation_metrics WHERE time >= ? AND time < ? GROUP BY key",
                    span,
                )
            }
            counted = connection.execute(
                f"SELECT {_KEYS[by]} AS key, {', '.join(_COUNTS)} "
                "FROM analysis_metrics WHERE time >= ? AND time < ? GROUP BY key ORDER BY key",
                span,
            )
            names = [column[0] for column in counted.description]
            rows = [dict(zip(names, row, strict=True)) for row in counted]
        return [
            MetricTotals(
                **row,
                prompt_tokens=generations.get(row["key"], (0, 0))[0],
                cached_tokens=generations.get(row["key"], (0, 0))[1],
                percentiles={
                    name: found[row["key"]]
                    for name, found in spreads.items()
                    if row["key"] in found
                },
            )
            for row in rows
        ]

    def refusals(self, *, since: float, until: float) -> dict[str, int]:
        """Return how many requests were refused in ``[since, until)``, by code, most first."""
        with self._database.read() as connection:
            return dict(
                connection.execute(
                    "SELECT code, count(*) AS n FROM analysis_metrics WHERE time >= ? AND time < ? "
                    "AND outcome = 'refused' GROUP BY code ORDER BY n DESC, code",
                    (since, until),
                ).fetchall()
            )


def _spreads(
    connection: sqlite3.Connection, span: tuple[float, float], by: Group
) -> Iterator[tuple[str, dict[str | int, Percentiles]]]:
    """Yield, by name, each group's percentiles; nearest rank is the ceil(q·n)-th value."""
    picks = ", ".join(
        f"min(CASE WHEN n >= (total * {q} + 99) / 100 THEN v END)" for q in _QUANTILES
    )
    for name, (table, column) in _SPREADS.items():
        rows = connection.execute(
            f"WITH found AS (SELECT {_KEYS[by]} AS key, {column} AS v FROM {table} "
            f"WHERE time >= ? AND time < ? AND {column} IS NOT NULL), "
            "ranked AS (SELECT key, v, row_number() OVER (PARTITION BY key ORDER BY v) AS n, "
            "count(*) OVER (PARTITION BY key) AS total FROM found) "
            f"SELECT key, {picks} FROM ranked GROUP BY key",
            span,
        )
        yield name, {key: Percentiles(*values) for key, *values in rows}


def _insert(table: str, columns: Sequence[str]) -> str:
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"


def _reached_generator(record: RequestRecord) -> bool:
    """Refused or left in the queue, a request has nothing to say of the generator."""
    return record.generated and bool(
        record.prefill_ms is not None or record.ttft_ms is not None or record.tokens_out
    )


def _analysis_row(number: int, r: RequestRecord) -> tuple[Any, ...]:
    return (
        number,
        *(r.time, r.request_id, r.lane, r.model, r.form, r.outcome, r.code),
        *(r.queue_ms, r.tokenize_ms, r.retrieve_ms, r.inference_ms, r.total_ms),
        *(r.tokens_in, r.tokens_out, r.tokens_cached),
        *(r.deadline_ms, r.deadline_met, r.predicted_ms),
    )


def _generation_row(number: int, r: RequestRecord) -> tuple[Any, ...]:
    return (
        number,
        *(r.time, r.request_id, r.lane, r.model, r.form, r.outcome),
        *(r.queue_ms, r.prefill_ms, r.decode_ms, r.ttft_ms, r.tps, r.tpot_ms),
        *(r.itl_p50_ms, r.itl_p99_ms, r.total_ms),
        *(r.tokens_in, r.tokens_out, r.tokens_cached),
        *(r.deadline_ms, r.deadline_met, r.predicted_ms),
    )
