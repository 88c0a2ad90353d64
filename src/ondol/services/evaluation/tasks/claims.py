"""Whether the claims of a result are carried by what they cite, checked anew. Blocking: asks sources.

A claim is a row of the result under a key that the task's ``verify`` steps check. It is supported where
everything it cites is there, word for word, and cites something at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ondol.services.evaluation.tasks.sources import Sources
from ondol.services.tasks.declaration import Task
from ondol.services.tasks.steps.verify import VerifyParameters
from ondol.text.features import coverage, features, numbers, union


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of one result. ``generated`` counts those that were dropped, too.

    ``support`` is, for each that says something in words, the share of them its evidence holds.
    """

    generated: int
    kept: int
    supported: int
    support: tuple[float, ...]


def claim_keys(task: Task) -> tuple[str, ...]:
    """Return the keys of a task's result that hold claims."""
    keys = [
        key
        for step in task.steps
        if isinstance(step.parameters, VerifyParameters)
        for key in step.parameters.claims
    ]
    return tuple(dict.fromkeys(keys))


def rows_of(result: Mapping[str, Any], keys: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (key, row) for every object under ``keys`` of a result."""
    for key in keys:
        value = result.get(key)
        for row in value if isinstance(value, list) else [value]:
            if isinstance(row, dict):
                yield key, row


def said_in(row: Mapping[str, Any]) -> str:
    """Return what a row says in words."""
    return " ".join(str(row[key]) for key in ("name", "text", "reason") if row.get(key))


def judged_claims(
    result: Mapping[str, Any], keys: Sequence[str], dropped: int, sources: Sources
) -> Claims:
    """Return how the claims of one result stand; ``dropped`` were taken out of it before."""
    kept = supported = 0
    support: list[float] = []
    for _, row in rows_of(result, keys):
        kept += 1
        texts = [sources.text_of(one) for one in row.get("evidence") or ()]
        found = [text for text in texts if text is not None]
        said = str(row.get("text") or "")
        carried = bool(found) and len(found) == len(texts)
        if carried and said:
            carried = numbers(said) <= frozenset().union(*map(numbers, found))
        supported += carried
        if said:
            support.append(coverage(features(said), union(map(features, found))))
    return Claims(kept + dropped, kept, supported, tuple(support))
