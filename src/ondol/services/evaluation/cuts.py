"""The ways of cutting a collection that are tried against each other, and what one amounts to.

Pure. A cut is searched through its own service, because it may lie in a store of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ondol.core.chunking import Chunking, ChunkStrategy
from ondol.core.errors import InvalidInput
from ondol.services.retrieval import RetrievalService

MOST = 24
"""Cuts tried in one run: each cuts, embeds and stores the whole collection."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A collection as it is cut one way, and the service that searches it.

    ``chunking`` is ``None`` where it was never recorded. ``names`` says what documents are called
    that have another name here than in the collection itself. ``embedded`` passages were embedded
    for it, in ``seconds`` with all else; both are 0 for the collection as it is.
    """

    chunking: Chunking | None
    retrieval: RetrievalService
    collection: str
    passages: int | None = None
    embedded: int = 0
    seconds: float = 0.0
    names: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "chunking": None if self.chunking is None else asdict(self.chunking),
            "passages": self.passages,
            "embedded": self.embedded,
            "cut_seconds": self.seconds,
        }


def candidates(
    now: Chunking | None,
    default: Chunking,
    *,
    strategies: Sequence[ChunkStrategy] = (),
    lengths: Sequence[int] = (),
) -> list[Chunking]:
    """Return every strategy at every length, but for ``now``; where none is given, that of ``now``.

    What is repeated between passages is that of ``now``; ``default`` stands for a cut that was never
    recorded. Raises ``InvalidInput`` for a length that does not exceed what is repeated, and for
    more than ``MOST`` cuts.
    """
    base = now or default
    short = [length for length in lengths if length <= base.overlap]
    if short:
        raise InvalidInput(
            f"passages of about {short[0]} characters cannot repeat {base.overlap} of them",
            hint="try longer ones, or cut the collection with a smaller ingest.chunk_overlap first",
            param="chunk_chars",
        )
    found = [
        Chunking(strategy, length, base.overlap)
        for strategy in dict.fromkeys(strategies or (base.strategy,))
        for length in dict.fromkeys(lengths or (base.target,))
    ]
    if len(found) > MOST:
        raise InvalidInput(
            f"{len(found)} ways of cutting; at most {MOST} are tried in one run",
            hint="name fewer strategies or lengths",
            param="chunking",
        )
    return [one for one in found if one != now]
