"""Which llama.cpp slot serves a request, and whether it may reuse what the slot holds.

A slot belongs to the owner (salt and adapter) whose prompt it holds, and no other may reuse it: the
slot is pinned for each request, and its cache is dropped when the owner changes. What ``PUBLIC``
filled anyone without an adapter may take over. Thread-safe; knows no process.

Reads standing prefixes into blank slots of a generator, when nobody else wants it.

One thread, started by the first ``set``. A real request makes a running read stop at once; it is
tried again when the generator is at rest. After a restart all are read again. Knows no process:
``read`` does the work and says how it went.

LoRA adapters of a llama.cpp generator: read from settings, checked, chosen by a request.

All are loaded at start and none is applied unless a request names it. Knows no process.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ondol.core.cancel import CancelToken
from ondol.core.errors import InvalidInput, Overloaded, SettingsError
from ondol.core.types import Message

_WORTH_REUSING = 0.25
"""A slot is preferred for its cache when it holds at least this share of the prompt."""


@dataclass(frozen=True, slots=True)
class SlotOwner:
    """Whose cache a slot holds: equal owners share, others never do."""

    salt: str = ""
    adapter: str = ""
    public: bool = False


PUBLIC = SlotOwner(public=True)
"""The owner of standing prefixes, which hold nothing of any caller."""


@dataclass(slots=True)
class _Slot:
    index: int
    owner: SlotOwner | None = None
    prompt: str = ""
    busy: bool = False
    last_used: int = 0

    def open_to(self, owner: SlotOwner) -> bool:
        """Whether ``owner`` may reuse what this slot holds."""
        return self.owner == owner or (self.owner == PUBLIC and not owner.adapter)


@dataclass(frozen=True, slots=True)
class SlotLease:
    """A slot for one request; ``reuse`` says whether its cache may be used."""

    index: int
    reuse: bool
    owner: SlotOwner
    prompt: str


class SlotTable:
    """The slots of one child, all unknown at first."""

    def __init__(self, slots: int) -> None:
        self._lock = threading.Lock()
        self._slots = [_Slot(index) for index in range(slots)]
        self._uses = 0

    def lease(self, owner: SlotOwner, *, prompt: str) -> SlotLease:
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

    def lease_blank(self, *, prompt: str) -> SlotLease | None:
        """Take, for ``PUBLIC``, a slot that is nobody's; ``None`` unless every slot is at rest."""
        with self._lock:
            if any(slot.busy for slot in self._slots):
                return None
            blank = next((slot for slot in self._slots if slot.owner is None), None)
            return None if blank is None else self._take(blank, PUBLIC, prompt)

    def confirm(self, lease: SlotLease) -> None:
        """Note that the slot holds this request's prompt now."""
        with self._lock:
            slot = self._slots[lease.index]
            slot.owner, slot.prompt = lease.owner, lease.prompt

    def release(self, lease: SlotLease, *, answer: str = "", read: float = 1.0) -> None:
        """Give the slot back; it holds the share ``read`` of the prompt, and behind it ``answer``."""
        with self._lock:
            slot = self._slots[lease.index]
            slot.busy = False
            if slot.owner == lease.owner and slot.prompt == lease.prompt:
                slot.prompt = slot.prompt[: round(len(slot.prompt) * min(1.0, read))] + answer

    def cached_chars(self, owner: SlotOwner, *, prompt: str) -> int:
        """Return how many characters at the beginning of ``prompt`` need not be read again.

        That of the slot that ``lease`` would choose now; while every slot is busy, of the best of
        them, since the prompt will run when one has become free.
        """
        with self._lock:
            slots = [slot for slot in self._slots if not slot.busy] or self._slots
            slot = _choose(slots, owner, prompt)
            return _shared(slot.prompt, prompt) if slot.open_to(owner) else 0

    def _take(self, slot: _Slot, owner: SlotOwner, prompt: str) -> SlotLease:
        self._uses += 1
        slot.busy, slot.last_used = True, self._uses
        lease = SlotLease(slot.index, reuse=slot.open_to(owner), owner=owner, prompt=prompt)
        if lease.reuse:
            slot.owner = owner
        else:
            # Nobody's until the new prompt has begun: a request that fails before that
            # leaves the former owner's cache in the slot.
            slot.owner, slot.prompt = None, ""
        return lease


def _choose(free: list[_Slot], owner: SlotOwner, prompt: str) -> _Slot:
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


Prefix = Sequence[Message]
Outcome = Literal["read", "later", "never"]
_GIVE_WAY_SECONDS = 5.0


class Preloader:
    """The prefixes still to be read, and the thread that reads them."""

    def __init__(self, read: Callable[[Prefix, CancelToken], Outcome]) -> None:
        self._read = read
        self._changed = threading.Condition()
        self._all: tuple[Prefix, ...] = ()
        self._due: deque[Prefix] = deque()
        self._running: CancelToken | None = None
        self._chances = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    def set(self, prefixes: Sequence[Prefix]) -> None:
        """Read ``prefixes`` from now on, in this order, in place of those set before."""
        with self._changed:
            self._all = tuple(prefixes)
            if self._thread is None and self._all and not self._closed:
                self._thread = threading.Thread(
                    target=self._run, name="ondol-llamacpp-preload", daemon=True
                )
                self._thread.start()
        self.begin()

    def begin(self) -> None:
        """Note that a child is ready whose slots hold nothing."""
        with self._changed:
            self._due = deque(self._all)
            self._chances += 1
            self._changed.notify_all()

    def chance(self) -> None:
        """Note that a request has ended, so that the generator may be at rest."""
        if self._due:
            with self._changed:
                self._chances += 1
                self._changed.notify_all()

    def give_way(self) -> bool:
        """Stop the read that runs, and return whether there was one, now gone."""
        if self._running is None:
            return False
        with self._changed:
            running = self._running
        if running is None:
            return True
        running.cancel()
        with self._changed:
            return self._changed.wait_for(lambda: self._running is not running, _GIVE_WAY_SECONDS)

    def wait_read(self, timeout: float) -> bool:
        """Return whether nothing is left to read within ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._due, timeout)

    def close(self) -> None:
        """End the thread; a running read is stopped."""
        with self._changed:
            self._closed = True
            self._due.clear()
            running, thread = self._running, self._thread
            self._changed.notify_all()
        if running is not None:
            running.cancel()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_GIVE_WAY_SECONDS)

    def _run(self) -> None:
        tried = -1
        while True:
            with self._changed:
                while not (self._closed or (self._due and self._chances != tried)):
                    self._changed.wait()
                if self._closed:
                    return
                prefix, chances = self._due[0], self._chances
                running = self._running = CancelToken()
            outcome = self._read(prefix, running)
            with self._changed:
                self._running = None
                if outcome == "later":
                    tried = chances
                elif self._due and self._due[0] is prefix:
                    self._due.popleft()
                self._changed.notify_all()


_SCALE = re.compile(r"-?\d+(\.\d+)?")
_SETTING = "generation.adapters"
_SHAPE = "write each as name=path.gguf, or name=path.gguf@0.5 to apply it at half strength"


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA file in GGUF, the name requests choose it by, and how strongly it is applied."""

    name: str
    path: Path
    scale: float = 1.0


def parse_adapters(texts: Sequence[str]) -> tuple[Adapter, ...]:
    """Return the adapters that ``name=path[@scale]`` texts name; raises ``SettingsError``."""
    adapters = tuple(_parse(text) for text in texts)
    names = [adapter.name for adapter in adapters]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(
                f"{_SETTING} names {name!r} twice", hint="give each its own name", param=_SETTING
            )
    return adapters


def check_adapters(adapters: Sequence[Adapter]) -> None:
    """Raise ``SettingsError`` for an adapter file that cannot be read or is no GGUF file."""
    for adapter in adapters:
        try:
            with adapter.path.open("rb") as file:
                magic = file.read(4)
        except OSError as error:
            raise SettingsError(
                f"adapter {adapter.name}: {adapter.path} cannot be read: {error.strerror}",
                hint=f"mend the path in {_SETTING}",
                param=_SETTING,
            ) from None
        if magic != b"GGUF":
            raise SettingsError(
                f"adapter {adapter.name}: {adapter.path} is not a GGUF file",
                hint="convert it with llama.cpp's convert_lora_to_gguf.py",
                param=_SETTING,
            )


def lora_body(adapters: Sequence[Adapter], *, chosen: str) -> dict[str, Any]:
    """Return the part of a request body that applies ``chosen`` and no other.

    Empty without adapters. Raises ``InvalidInput`` for a name that is not loaded.
    """
    if chosen and chosen not in {adapter.name for adapter in adapters}:
        known = ", ".join(adapter.name for adapter in adapters) or "none"
        raise InvalidInput(
            f"there is no adapter {chosen!r}; loaded are: {known}",
            hint=f"choose one of GET /v1/models, or add it to {_SETTING} and restart",
            param="model",
        )
    if not adapters:
        return {}
    return {
        "lora": [
            {"id": index, "scale": adapter.scale if adapter.name == chosen else 0.0}
            for index, adapter in enumerate(adapters)
        ]
    }


def _parse(text: str) -> Adapter:
    name, equals, rest = text.partition("=")
    name, path, scale = name.strip(), rest.strip(), 1.0
    before, at, after = path.rpartition("@")
    if at and _SCALE.fullmatch(after):  # another @ belongs to the path
        path, scale = before, float(after)
    if not (name and equals and path) or "," in path:
        raise SettingsError(f"{_SETTING} has {text!r}", hint=_SHAPE, param=_SETTING)
    return Adapter(name=name, path=Path(path).expanduser().absolute(), scale=scale)
