"""How far jobs step back for people: nothing new while they are there, one item now and then, never for ever."""

from __future__ import annotations

CALM_SECONDS = 5.0
"""So long after the last interactive request people count as there: another may come."""

QUIET_SECONDS = 30.0
"""So long after the last interactive request only one item runs: whoever comes back meets one."""


class Courtesy:
    """Decides how many items may begin. ``seconds`` is the longest it holds everything back."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def places(self, *, free: int, running: int, last_seen: float, now: float) -> int:
        """Return how many of ``free`` places may be filled while ``running`` items run.

        ``last_seen`` is when people were here last, ``now`` while they are; monotonic seconds.
        """
        if not self._seconds:
            return free
        if now - last_seen >= CALM_SECONDS:
            self._since = None
            quiet = now - last_seen >= QUIET_SECONDS
            return free if quiet else min(free, max(0, 1 - running))
        if self._since is None or running:
            # Who stays is held back anew from the end of each item that ran beside people.
            self._since = now
        return min(free, 1) if now - self._since >= self._seconds else 0
