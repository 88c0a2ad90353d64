"""What the garbage collector is spared, and what a trim still finds."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from ondol.core import process as memory
from ondol.core.process import settle, trim


class Knot:
    """Holds itself, so that only the collector can free it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def unsettled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_settled", threading.Event())


def test_what_has_settled_is_looked_at_no_more() -> None:
    knot = Knot()
    seen = weakref.ref(knot)
    settle()
    del knot
    gc.collect()
    assert seen() is not None


def test_a_trim_frees_what_had_settled_and_is_needed_no_more() -> None:
    knot, kept = Knot(), Knot()
    seen = weakref.ref(knot)
    settle()
    del knot
    trim()
    assert seen() is None
    assert gc.get_freeze_count() > 0
    assert kept.itself is kept


def test_a_trim_leaves_alone_what_others_have_frozen() -> None:
    gc.freeze()
    trim()
    assert gc.get_freeze_count() > 0
