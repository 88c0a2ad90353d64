"""How far jobs step back for people: nothing new while they wait, little right after, never for ever."""

from __future__ import annotations

CALM_SECONDS = 5.0
"""So long after the last interactive request only one item runs: another may come."""


class Courtesy:
    """Decides how many items may begin. ``seconds`` is the longest it holds everything back."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None
        self._last = float("-inf")

    def places(self, *, free: int, running: int, busy: bool, now: float) -> int:
        """Return how many of ``free`` places may be filled while ``running`` items run.

        ``busy`` says whether interactive requests run or wait; ``now`` is monotonic seconds.
        """
        if not self._seconds:
            return free
        alone = min(free, max(0, 1 - running))
        if busy:
            self._since = now if self._since is None else self._since
            self._last = now
            return alone if now - self._since >= self._seconds else 0
        self._since = None
        return alone if now - self._last < CALM_SECONDS else free
