"""The items that wait in front of one encoder, and the requests they belong to.

Owns order of arrival, by class. Not thread-safe: the batcher guards it with its own lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

from ondol.core.types import Encoded
from ondol.runtime.encoders.batching import WINDOW, Aging, Budget, next_batch
from ondol.runtime.encoders.isolation import Value


@dataclass(slots=True)
class EncodeRequest:
    """One caller's items: their values as they come, and when the first began and the last ended."""

    values: list[Value | None]
    tokens: list[int]
    remaining: int
    urgent: bool
    future: asyncio.Future[None]
    loop: asyncio.AbstractEventLoop
    enqueued: float = 0.0
    started: float = 0.0
    finished: float = 0.0
    tokenize_seconds: float = 0.0
    cancelled: bool = False


@dataclass(slots=True, eq=False)
class QueuedItem:
    """One text or pair of a request, tokenised; what ``batching.Waiting`` asks for."""

    request: EncodeRequest
    index: int
    encoded: Encoded
    arrived: float
    urgent: bool = field(init=False)
    tokens: int = field(init=False)

    def __post_init__(self) -> None:
        self.urgent = self.request.urgent
        self.tokens = self.encoded.tokens


class EncoderQueue:
    """Waiting items, urgent and bulk."""

    def __init__(self, *, aging: Aging) -> None:
        self._aging = aging
        self._urgent: list[QueuedItem] = []
        self._bulk: list[QueuedItem] = []
        self._urgent_streak = 0

    def __len__(self) -> int:
        return len(self._urgent) + len(self._bulk)

    @property
    def urgent(self) -> bool:
        """Whether anybody urgent waits."""
        return bool(self._urgent)

    @property
    def urgent_streak(self) -> int:
        """Urgent batches in a row while bulk work waited."""
        return self._urgent_streak

    def extend(self, items: Iterable[QueuedItem], *, urgent: bool) -> None:
        """Let ``items`` wait, behind those of their class."""
        (self._urgent if urgent else self._bulk).extend(items)

    def take(self, budget: Budget, *, now: float, bulk: Budget | None = None) -> list[QueuedItem]:
        """Take out what runs now; empty when nobody waits who has not left.

        ``bulk`` limits a batch of bulk work, by default ``budget`` does.
        """
        self._forget_cancelled()
        view: Sequence[QueuedItem] = [
            *islice(self._urgent, WINDOW),
            *islice(self._bulk, WINDOW),
        ]
        chosen = next_batch(
            view,
            budget,
            now=now,
            urgent_streak=self._urgent_streak,
            aging=self._aging,
            bulk=bulk,
        )
        batch = [view[i] for i in chosen]
        if not batch:
            return batch
        self._remove(batch, urgent=batch[0].urgent)
        return batch

    def clear(self) -> list[QueuedItem]:
        """Take everything out."""
        everything = [*self._urgent, *self._bulk]
        self._urgent, self._bulk = [], []
        return everything

    def _remove(self, batch: Sequence[QueuedItem], *, urgent: bool) -> None:
        items = self._urgent if urgent else self._bulk
        taken = set(batch)
        kept = [item for item in islice(items, WINDOW) if item not in taken]
        items[:WINDOW] = kept
        self._urgent_streak = self._urgent_streak + 1 if urgent and self._bulk else 0

    def _forget_cancelled(self) -> None:
        if any(item.request.cancelled for item in chain(self._urgent, self._bulk)):
            self._urgent = [item for item in self._urgent if not item.request.cancelled]
            self._bulk = [item for item in self._bulk if not item.request.cancelled]
