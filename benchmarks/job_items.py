"""Items for the benchmark of jobs: all shared restaurants, or a file; and some of them made bad.

A bad item is bad in a way of its own, and its code is known before: ``Items.bad`` has it by ordinal.
The first item is never made bad, since another may take its id.
"""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from common import rows_of

from ondol.core.settings.operation_sections import JobSettings

SETS = ("ko_reviews_yogiyo", "en_reviews_zomato")
_TOO_LONG = "x" * (JobSettings().max_item_bytes + 1)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Items:
    """What is handed in; ``bad`` maps the ordinals of bad items to the code each must fail with."""

    rows: Sequence[Row]
    bad: Mapping[int, str] = field(default_factory=dict)


def restaurants(*, least: int, limit: int | None) -> list[Row]:
    """Return an item a restaurant that has ``least`` reviews, the sets in turn."""
    found: list[list[Row]] = []
    for name in SETS:
        shops: dict[str, list[Row]] = defaultdict(list)
        for row in rows_of(name, "reviews.jsonl"):
            shops[row["restaurant_id"]].append({"id": row["review_id"], "text": row["text"]})
        found.append(
            [
                {"id": shop, "input": {"reviews": reviews}}
                for shop, reviews in shops.items()
                if len(reviews) >= least
            ]
        )
    longest = max(map(len, found))
    mixed = [rows[n] for n in range(longest) for rows in found if n < len(rows)]
    return mixed[:limit]


def from_file(path: Path, *, limit: int | None) -> list[Row]:
    """Return the items of a file of JSON Lines."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in islice(lines, limit)]


def poisoned(rows: Sequence[Row], share: float, *, task: str, seed: int) -> Items:
    """Return the rows with ``share`` of them, rounded up, made bad; which ones is drawn by ``seed``."""
    count = min(math.ceil(share * len(rows)), len(rows) - 1)
    chosen = sorted(random.Random(seed).sample(range(1, len(rows)), count))
    ways = [*(_OF_REVIEWS if task.startswith("reviews.") else ()), *_OF_ANY]
    made, bad = list(rows), {}
    for ordinal, (code, change) in zip(chosen, cycle(_spread(ways)), strict=False):
        made[ordinal] = _changed(rows[ordinal], change, first=rows[0])
        bad[ordinal] = code
    return Items(made, bad)


def _changed(row: Row, change: Row, *, first: Row) -> Row:
    """Return ``row`` with the keys of ``change``; a dict is merged into the input, a name stands for."""
    if change.get("id") == "taken":
        return {**row, "id": first["id"]}
    if isinstance(change.get("input"), dict):
        return {**row, "input": {**row["input"], **change["input"]}}
    return {**row, **change}


def _spread(ways: Sequence[tuple[str, Row]]) -> list[tuple[str, Row]]:
    """Return ``ways`` with each code once before any comes again, so that a few differ most."""
    seen: dict[str, int] = defaultdict(int)
    ranked = []
    for place, way in enumerate(ways):
        ranked.append((seen[way[0]], place, way))
        seen[way[0]] += 1
    return [way for _, _, way in sorted(ranked, key=lambda one: one[:2])]


_OF_REVIEWS: tuple[tuple[str, Row], ...] = (
    ("no_entries", {"input": {"reviews": []}}),
    ("invalid_task_input", {"input": {"reviews": [{"id": "r1", "text": 5}]}}),
    ("invalid_task_input", {"input": {"reviews": "맛있어요"}}),
    ("invalid_task_input", {"input": {"stars": 5}}),
    ("no_entries", {"input": {"reviews": [{"id": "r1", "text": " \n"}]}}),
    ("too_many_items", {"input": {"reviews": [{"text": "맛있어요"}] * 5_001}}),
)
_OF_ANY: tuple[tuple[str, Row], ...] = (
    ("payload_too_large", {"input": {"filler": _TOO_LONG}}),
    ("duplicate_id", {"id": "taken"}),
    ("invalid_item", {"input": "맛있어요"}),
    ("unknown_field", {"restaurant": "국밥집"}),
    ("invalid_id", {"id": "x" * 201}),
)
