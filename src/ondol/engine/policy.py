"""Which waiting request runs next: a pure function of (queue, clock).

First come, first served for now; lanes with service levels will be another function of the same
shape. Knows no thread, no future and no backend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a policy may know of a waiting request; ``arrived`` is monotonic seconds."""

    lane: str
    arrived: float
    sequence: int
    prompt_chars: int = 0
    max_tokens: int = 0


NextIndex = Callable[[Sequence[Waiting], float], int]


def next_index(waiting: Sequence[Waiting], now: float) -> int:
    """Return the index of the request to run now, first come first served.

    ``waiting`` is not empty; its order is the caller's and means nothing to the choice.
    """
    return min(range(len(waiting)), key=lambda i: waiting[i].sequence)
