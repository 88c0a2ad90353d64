"""How far each lane is ahead of its share: virtual token counters, in weighted seconds of work.

Serving a lane advances its counter by work over weight; a lane that comes back from idleness starts
level with the least served of those active, so that idling saves nothing up. Source: Sheng et al.,
Fairness in Serving Large Language Models, OSDI 2024.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping


class Fairness:
    """One counter a lane; lanes not named weigh 1."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = dict(weights)
        self._counters: dict[str, float] = {}
        self._active: set[str] = set()

    def served(self, lane: str, work: float, *, active: Collection[str]) -> None:
        """Note that ``lane`` gets ``work`` seconds; ``active`` are the lanes that still wait."""
        self._lift({lane, *active})
        self._counters[lane] += work / self._weights.get(lane, 1.0)
        self._active = set(active)

    def lead(self, lanes: Collection[str]) -> dict[str, float]:
        """Return by how much each of ``lanes`` is ahead of the least served of them."""
        self._lift(lanes)
        least = min((self._counters[lane] for lane in lanes), default=0.0)
        return {lane: self._counters[lane] - least for lane in lanes}

    def _lift(self, lanes: Collection[str]) -> None:
        """Let lanes that were idle start level with the least served of the others."""
        standing = [self._counters[lane] for lane in lanes if lane in self._active]
        floor = min(standing, default=max(self._counters.values(), default=0.0))
        for lane in lanes:
            if lane not in self._active:
                self._counters[lane] = max(self._counters.get(lane, 0.0), floor)
        self._active |= set(lanes)
