"""Which waiting items run next: a pure function of (queue, budget).

The oldest item of the most urgent class anchors the batch; the rest of the batch are the waiting
items nearest to it in length, so that padding stays small and nobody starves. Knows no thread,
no clock and no model. After nano-vllm's scheduler: it decides, the worker does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

WINDOW = 512
"""How many waiting items are looked at for one batch, so that a choice stays cheap."""


class Waiting(Protocol):
    """What the policy needs to know of a waiting item."""

    @property
    def tokens(self) -> int: ...
    @property
    def urgent(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of one batch: padded tokens (items × longest) and items."""

    tokens: int
    items: int


def next_batch(waiting: Sequence[Waiting], budget: Budget) -> list[int]:
    """Return the indices of the items to run now, in queue order; empty only when none wait.

    ``waiting`` is in order of arrival. Urgent items run before the others and never share a batch
    with them. An item that alone exceeds the token budget runs alone.
    """
    if not waiting:
        return []
    anchor = next((i for i, item in enumerate(waiting) if item.urgent), 0)
    urgent = waiting[anchor].urgent
    length = waiting[anchor].tokens
    candidates = (i for i, item in enumerate(waiting) if i != anchor and item.urgent == urgent)
    mates = sorted(islice(candidates, WINDOW), key=lambda i: (abs(waiting[i].tokens - length), i))
    chosen = [anchor]
    longest = length
    for i in mates:
        if len(chosen) >= budget.items:
            break
        new_longest = max(longest, waiting[i].tokens)
        if new_longest * (len(chosen) + 1) > budget.tokens:
            continue
        chosen.append(i)
        longest = new_longest
    return sorted(chosen)
