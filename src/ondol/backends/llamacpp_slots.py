"""Which llama.cpp slot serves a request, and whether it may reuse what the slot holds.

Requests with different salts never share a prompt cache: the slot is pinned for each request, and
its cache is dropped when the salt changes. Thread-safe; knows no process.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from ondol.core.errors import Overloaded

_WORTH_REUSING = 0.25
"""A slot is preferred for its cache when it holds at least this share of the prompt."""


@dataclass(slots=True)
class _Slot:
    index: int
    salt: str | None = None
    prompt: str = ""
    busy: bool = False
    last_used: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """A slot for one request; ``reuse`` says whether its cache may be used."""

    index: int
    reuse: bool
    salt: str
    prompt: str


class SlotTable:
    """The slots of one child, all unknown at first."""

    def __init__(self, slots: int) -> None:
        self._lock = threading.Lock()
        self._slots = [_Slot(index) for index in range(slots)]
        self._uses = 0

    def lease(self, *, salt: str, prompt: str) -> Lease:
        """Take a free slot; raises ``Overloaded`` when every slot is busy."""
        with self._lock:
            free = [slot for slot in self._slots if not slot.busy]
            if not free:
                raise Overloaded(
                    f"all {len(self._slots)} slots of the generator are busy",
                    retry_after=1.0,
                    hint="queue requests in front of the generator, or raise generation.slots",
                )
            slot = _choose(free, salt, prompt)
            self._uses += 1
            slot.busy, slot.last_used = True, self._uses
            lease = Lease(slot.index, reuse=slot.salt == salt, salt=salt, prompt=prompt)
            if not lease.reuse:
                # Nobody's until the new prompt has begun: a request that fails before that
                # leaves the former owner's cache in the slot.
                slot.salt, slot.prompt = None, ""
            return lease

    def confirm(self, lease: Lease) -> None:
        """Note that the slot holds this request's prompt now."""
        with self._lock:
            slot = self._slots[lease.index]
            slot.salt, slot.prompt = lease.salt, lease.prompt

    def release(self, lease: Lease) -> None:
        with self._lock:
            self._slots[lease.index].busy = False


def _choose(free: list[_Slot], salt: str, prompt: str) -> _Slot:
    """Return the slot with the most of this prompt under this salt, else the longest unused."""
    oldest = min(free, key=lambda slot: slot.last_used)
    own = [slot for slot in free if slot.salt == salt]
    if not own:
        return oldest
    best = max(own, key=lambda slot: (_shared(slot.prompt, prompt), -slot.last_used))
    return best if _shared(best.prompt, prompt) >= _WORTH_REUSING * len(prompt) else oldest


def _shared(left: str, right: str) -> int:
    """Return how many characters both begin with."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(left), len(right)))
