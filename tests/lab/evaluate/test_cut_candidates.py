"""Which ways of cutting are tried: every strategy at every length, but for the present one."""

from __future__ import annotations

from typing import Any

import pytest

from ondol.core.chunk_options import ChunkOptions
from ondol.core.errors import InvalidInput
from ondol.lab.evaluate.cut_optimiser import candidates

RECURSIVE = ChunkOptions("recursive", 400, 60)
HEADING = ChunkOptions("heading", 400, 60)


def test_every_other_way_is_tried_once() -> None:
    every: dict[str, Any] = {"strategies": ("auto", "heading", "auto"), "lengths": (300, 400)}
    assert candidates(HEADING, RECURSIVE, **every) == [
        ChunkOptions("auto", 300, 60),
        ChunkOptions("auto", 400, 60),
        ChunkOptions("heading", 300, 60),
    ]
    assert len(candidates(None, HEADING, **every)) == 4
    assert candidates(None, HEADING) == [HEADING]
    assert candidates(HEADING, RECURSIVE) == []
    assert candidates(HEADING, RECURSIVE, lengths=(500,)) == [ChunkOptions("heading", 500, 60)]
    with pytest.raises(InvalidInput, match="cannot repeat 60"):
        candidates(HEADING, RECURSIVE, lengths=(60,))
    with pytest.raises(InvalidInput, match="at most"):
        candidates(HEADING, RECURSIVE, lengths=range(100, 130))
