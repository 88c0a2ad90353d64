"""Standing prefixes are read in the background, and never stand in anybody's way."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ondol.backends.llamacpp_slots import Outcome, Prefix, Preloader
from ondol.core.cancel import CancelToken
from ondol.core.types import Message

SECONDS = 10.0
ONE, TWO = [Message("system", "one")], [Message("system", "two")]


class Reader:
    """Reads when told to; notes what was read, and what was stopped."""

    def __init__(self) -> None:
        self.outcome: Outcome = "read"
        self.read: list[Prefix] = []
        self.stopped = 0
        self.began = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, prefix: Prefix, cancel: CancelToken) -> Outcome:
        cancel.on_cancel(self.gate.set)
        self.began.release()
        assert self.gate.wait(SECONDS)
        if cancel.cancelled:
            self.stopped += 1
            return "later"
        self.read.append(prefix)
        return self.outcome


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def preloader(reader: Reader) -> Iterator[Preloader]:
    found = Preloader(reader)
    yield found
    found.close()


def test_reads_all_in_order_and_again_after_a_restart(preloader: Preloader, reader: Reader) -> None:
    preloader.set([ONE, TWO])
    assert preloader.wait_read(SECONDS)
    preloader.begin()
    assert preloader.wait_read(SECONDS)

    assert reader.read == [ONE, TWO, ONE, TWO]


def test_gives_way_and_tries_again_at_the_next_chance(preloader: Preloader, reader: Reader) -> None:
    reader.gate.clear()
    preloader.set([ONE])
    assert reader.began.acquire(timeout=SECONDS)

    assert preloader.give_way()
    assert (reader.stopped, reader.read) == (1, [])
    assert not preloader.give_way()
    preloader.chance()
    assert preloader.wait_read(SECONDS)
    assert reader.read == [ONE]


def test_what_cannot_be_read_is_given_up(preloader: Preloader, reader: Reader) -> None:
    reader.outcome = "never"
    preloader.set([ONE])

    assert preloader.wait_read(SECONDS)
    assert reader.read == [ONE]


def test_closing_stops_a_running_read(preloader: Preloader, reader: Reader) -> None:
    reader.gate.clear()
    preloader.set([ONE, TWO])
    assert reader.began.acquire(timeout=SECONDS)
    preloader.close()

    assert reader.read == []
    assert reader.stopped == 1
