"""How a collection's documents are cut into passages: by which structure, how long, how much repeated.

Recorded with a collection, so that what comes in later is cut the same way. Knows no text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

ChunkStrategy = Literal["auto", "statute", "judgment", "record", "heading", "recursive"]
"""``auto`` recognises each document by its structure; every other one is taken at its word."""

STRATEGIES: tuple[ChunkStrategy, ...] = get_args(ChunkStrategy)


@dataclass(frozen=True, slots=True)
class ChunkOptions:
    """A strategy with the target length and the overlap of its passages, in characters."""

    strategy: ChunkStrategy
    target: int
    overlap: int

    def __str__(self) -> str:
        return f"{self.strategy}, about {self.target} characters, {self.overlap} repeated"
