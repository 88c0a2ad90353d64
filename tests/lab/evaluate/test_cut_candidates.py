"""Which ways of cutting are tried: every strategy at every length, but for the present one."""

from __future__ import annotations

from typing import Any

import pytest

from ondol.core.chunk_options import Chunking
from ondol.core.errors import InvalidInput
from ondol.lab.evaluate.cut_optimiser import candidates

RECURSIVE = Chunking("recursive", 400, 60)
HEADING = Chunking("heading", 400, 60)


def test_every_other_way_is_tried_once() -> None:
    every: dict[str, Any] = {"strategies": ("auto", "heading", "auto"), "lengths": (300, 400)}
    assert candidates(HEADING, RECURSIVE, **every) == [
        Chunking("auto", 300, 60),
        Chunking("auto", 400, 60),
        Chunking("heading", 300, 60),
    ]
    assert len(candidates(None, HEADING, **every)) == 4
    assert candidates(None, HEADING) == [HEADING]
    assert candidates(HEADING, RECURSIVE) == []
    assert candidates(HEADING, RECURSIVE, lengths=(500,)) == [Chunking("heading", 500, 60)]
    with pytest.raises(InvalidInput, match="cannot repeat 60"):
        candidates(HEADING, RECURSIVE, lengths=(60,))
    with pytest.raises(InvalidInput, match="at most"):
        candidates(HEADING, RECURSIVE, lengths=range(100, 130))
