"""When it is asked: seconds after the start, one per request, decided before anything is sent.

Open loop: no arrival waits for an answer. Poisson gaps are drawn once at rate 1 and stretched, so
that every load replays the same pattern. Pure.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from ondol.services.bench.load.traces import Row

ArrivalKind = Literal["poisson", "burst", "trace"]


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How requests come; a burst is ``size`` (0: all) at once, every ``every`` seconds."""

    kind: ArrivalKind = "poisson"
    seed: int = 0
    size: int = 0
    every: float = 1.0

    def times(self, rows: Sequence[Row], *, rate: float) -> tuple[float, ...]:
        """Return the seconds at which ``rows`` are sent, ascending, ``rate`` a second on average.

        Bursts have their own rhythm and leave ``rate`` aside.
        """
        if self.kind == "burst":
            size = self.size or len(rows)
            return tuple(index // size * self.every for index in range(len(rows)))
        if self.kind == "trace":
            span = rows[-1].at - rows[0].at
            stretch = (len(rows) - 1) / rate / span if span > 0 else 0.0
            return tuple((row.at - rows[0].at) * stretch for row in rows)
        chance = random.Random(f"arrivals:{self.seed}")
        return tuple(accumulate(chance.expovariate(1.0) / rate for _ in rows))
