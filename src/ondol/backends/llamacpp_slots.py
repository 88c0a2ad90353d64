"""Which llama.cpp slot serves a request, and whether it may reuse what the slot holds.

A slot belongs to the owner (salt and adapter) whose prompt it holds, and no other may reuse it: the
slot is pinned for each request, and its cache is dropped when the owner changes. What ``PUBLIC``
filled anyone without an adapter may take over. Thread-safe; knows no process.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from ondol.core.errors import Overloaded

_WORTH_REUSING = 0.25
"""A slot is preferred for its cache when it holds at least this share of the prompt."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose cache a slot holds: equal owners share, others never do."""

    salt: str = ""
    adapter: str = ""
    public: bool = False


PUBLIC = Owner(public=True)
"""The owner of standing prefixes, which hold nothing of any caller."""


@dataclass(slots=True)
class _Slot:
    index: int
    owner: Owner | None = None
    prompt: str = ""
    busy: bool = False
    last_used: int = 0

    def open_to(self, owner: Owner) -> bool:
        """Whether ``owner`` may reuse what this slot holds."""
        return self.owner == owner or (self.owner == PUBLIC and not owner.adapter)


@dataclass(frozen=True, slots=True)
class Lease:
    """A slot for one request; ``reuse`` says whether its cache may be used."""

    index: int
    reuse: bool
    owner: Owner
    prompt: str


class SlotTable:
    """The slots of one child, all unknown at first."""

    def __init__(self, slots: int) -> None:
        self._lock = threading.Lock()
        self._slots = [_Slot(index) for index in range(slots)]
        self._uses = 0

    def lease(self, owner: Owner, *, prompt: str) -> Lease:
        """Take a free slot; raises ``Overloaded`` when every slot is busy."""
        with self._lock:
            free = [slot for slot in self._slots if not slot.busy]
            if not free:
                raise Overloaded(
                    f"all {len(self._slots)} slots of the generator are busy",
                    retry_after=1.0,
                    hint="queue requests in front of the generator, or raise generation.slots",
                )
            return self._take(_choose(free, owner, prompt), owner, prompt)

    def lease_blank(self, *, prompt: str) -> Lease | None:
        """Take, for ``PUBLIC``, a slot that is nobody's; ``None`` unless every slot is at rest."""
        with self._lock:
            if any(slot.busy for slot in self._slots):
                return None
            blank = next((slot for slot in self._slots if slot.owner is None), None)
            return None if blank is None else self._take(blank, PUBLIC, prompt)

    def confirm(self, lease: Lease) -> None:
        """Note that the slot holds this request's prompt now."""
        with self._lock:
            slot = self._slots[lease.index]
            slot.owner, slot.prompt = lease.owner, lease.prompt

    def release(self, lease: Lease, *, answer: str = "", read: float = 1.0) -> None:
        """Give the slot back; it holds the share ``read`` of the prompt, and behind it ``answer``."""
        with self._lock:
            slot = self._slots[lease.index]
            slot.busy = False
            if slot.owner == lease.owner and slot.prompt == lease.prompt:
                slot.prompt = slot.prompt[: round(len(slot.prompt) * min(1.0, read))] + answer

    def cached_chars(self, owner: Owner, *, prompt: str) -> int:
        """Return how many characters at the beginning of ``prompt`` need not be read again.

        That of the slot that ``lease`` would choose now; while every slot is busy, of the best of
        them, since the prompt will run when one has become free.
        """
        with self._lock:
            slots = [slot for slot in self._slots if not slot.busy] or self._slots
            slot = _choose(slots, owner, prompt)
            return _shared(slot.prompt, prompt) if slot.open_to(owner) else 0

    def _take(self, slot: _Slot, owner: Owner, prompt: str) -> Lease:
        self._uses += 1
        slot.busy, slot.last_used = True, self._uses
        lease = Lease(slot.index, reuse=slot.open_to(owner), owner=owner, prompt=prompt)
        if lease.reuse:
            slot.owner = owner
        else:
            # Nobody's until the new prompt has begun: a request that fails before that
            # leaves the former owner's cache in the slot.
            slot.owner, slot.prompt = None, ""
        return lease


def _choose(free: list[_Slot], owner: Owner, prompt: str) -> _Slot:
    """Return the slot with the most of this prompt that is open to its owner, else the oldest.

    Of equals the owner's own goes before a public one, which stays for the next owner.
    """
    oldest = min(free, key=lambda slot: slot.last_used)
    found = [
        (_shared(slot.prompt, prompt), slot.owner == owner, -slot.last_used, slot.index, slot)
        for slot in free
        if slot.open_to(owner)
    ]
    if not found:
        return oldest
    shared, *_, best = max(found)
    return best if shared >= _WORTH_REUSING * len(prompt) else oldest


def _shared(left: str, right: str) -> int:
    """Return how many characters both begin with, by halving: slices compare at memory speed."""
    most = min(len(left), len(right))
    if left[:most] == right[:most]:
        return most
    same = 0  # the first ``same`` characters agree, the first ``most`` do not
    while same + 1 < most:
        middle = (same + most) // 2
        if left[same:middle] == right[same:middle]:
            same = middle
        else:
            most = middle
    return same
