"""Whether asking a slow cache pays: what a look-up costs against what its hits save.

Pure arithmetic over running averages; owns no cache and no clock. A cache that does not pay is still
asked now and then, so that one that has begun to pay is found out.
"""

from __future__ import annotations

FREE_SHARE = 0.02
"""A look-up that costs no more than this share of computing is always made."""

PROBE_EVERY = 16
_HITS_MEMORY = 32
_TIMES_MEMORY = 4  # short: a first look-up that had to connect must soon be forgotten


class LookupWorth:
    """Running averages over the last few texts; asks until it knows better."""

    def __init__(self) -> None:
        self._hit_rate = 1.0
        self._lookup: float | None = None
        self._compute: float | None = None
        self._declined = 0

    def asks(self) -> bool:
        """Whether to ask now; counts as declined when not."""
        if self._lookup is None or self._compute is None:
            return True
        gain = max(self._hit_rate, FREE_SHARE) * self._compute
        if self._lookup <= gain or self._declined >= PROBE_EVERY - 1:
            self._declined = 0
            return True
        self._declined += 1
        return False

    def asked(self, texts: int, *, hits: int, seconds: float) -> None:
        """Note a look-up of ``texts`` that found ``hits`` and took ``seconds``."""
        self._hit_rate += min(1.0, texts / _HITS_MEMORY) * (hits / texts - self._hit_rate)
        self._lookup = _blend(self._lookup, seconds / texts, texts)

    def computed(self, texts: int, *, seconds: float) -> None:
        """Note that computing ``texts`` took ``seconds``."""
        self._compute = _blend(self._compute, seconds / texts, texts)


def _blend(old: float | None, new: float, texts: int) -> float:
    return new if old is None else old + min(1.0, texts / _TIMES_MEMORY) * (new - old)
