"""Growing token ids to text that can be shown: never half a character, never part of a stop text.

Knows no tokenizer but the function that decodes ids. Imports nothing of ours: a process that is run
by path loads this file by path too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


class StreamedText:
    """The text of one answer; ``stopped`` once a stop text was met.

    Decodes a window of the last tokens only, because a decoder may treat the first token of what it
    is given in its own way (a leading blank).
    """

    def __init__(self, decode: Callable[[list[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stops = tuple(stops)
        self._ids: list[int] = []
        self._from = self._read = 0
        self._held = ""
        self.stopped = False

    def feed(self, ids: Sequence[int]) -> str:
        """Take the next ids and return the text that may be shown now, perhaps none."""
        self._ids += ids
        before = self._decode(self._ids[self._from : self._read]) if self._read else ""
        now = self._decode(self._ids[self._from :])
        if len(now) <= len(before) or now.endswith("\ufffd"):
            return ""
        self._from, self._read = self._read, len(self._ids)
        self._held += now[len(before) :]
        places = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if places:
            self.stopped = True
            return self._held[: min(places)]
        keep = max((self._overlap(stop) for stop in self._stops), default=0)
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(shown) :]
        return shown

    def rest(self) -> str:
        """Return what was held back for a stop text that never came."""
        return "" if self.stopped else self._held

    def _overlap(self, stop: str) -> int:
        """Return how many last characters might be the beginning of ``stop``."""
        most = min(len(stop) - 1, len(self._held))
        return next((n for n in range(most, 0, -1) if self._held.endswith(stop[:n])), 0)
