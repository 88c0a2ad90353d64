"""An immutable inverted index in memory: which chunks hold a term how often, and their BM25 scores.

Derived from the lexical table and scored as FTS5's ``bm25()`` scores it, some fifty times faster.
``Postings`` is a few ``Block``s in ascending chunk id; adding or removing chunks gives a new one that
shares the old blocks, so readers need no lock. Terms are known by their hash in this process only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ondol.store.posting_block import (
    BLOCK_CHUNKS,
    K1,
    Block,
    Hashes,
    Ids,
    block_of,
    block_scores,
    compacted,
    hashes_of,
    joined,
)

IDF_FLOOR = 1e-6


@dataclass(frozen=True, slots=True)
class Postings:
    """The blocks of a collection; ``stamp`` and ``lexicon`` say of which contents they are."""

    blocks: tuple[Block, ...] = ()
    stamp: str = ""
    lexicon: str = ""
    last: int = 0
    chunks: int = 0
    length: float = 0.0

    @property
    def nbytes(self) -> int:
        return sum(block.nbytes for block in self.blocks)

    def frequencies(self, terms: Sequence[str]) -> list[int]:
        """Return in how many chunks each term stands."""
        wanted = hashes_of(terms)
        found = np.zeros(len(terms), np.int64)
        for block in self.blocks:
            first, sizes = block.spans(wanted)
            if block.alive is None:
                found += sizes
                continue
            for at in np.flatnonzero(sizes):
                part = block.places[first[at] : first[at] + sizes[at]]
                found[at] += int(block.alive[part].sum())
        return [int(count) for count in found]

    def best(
        self,
        terms: Sequence[str],
        weights: Sequence[float],
        *,
        limit: int,
        allowed: Ids | None = None,
    ) -> list[tuple[int, float]]:
        """Return up to ``limit`` (chunk, score) that hold any term, best first, ties by id.

        ``weights`` multiply the terms' scores; only chunks of ``allowed`` (ascending) count.
        """
        if not terms or limit < 1 or not self.length:
            return []
        wanted = hashes_of(terms)
        held = np.array(self.frequencies(terms), np.float64)
        idf = np.maximum(np.log((self.chunks - held + 0.5) / (held + 0.5)), IDF_FLOOR)
        factors = (idf * np.asarray(weights, np.float64) * (K1 + 1)).astype(np.float64)
        ids: list[Ids] = []
        scores: list[NDArray[np.float64]] = []
        for block in self.blocks:
            of_block = block_scores(block, wanted, factors, mean=self.length / self.chunks)
            if of_block is None:
                continue
            if allowed is not None:
                of_block[~np.isin(block.ids, allowed, assume_unique=True)] = 0.0
            best = _floor(of_block, limit)
            ids.append(block.ids[best])
            scores.append(of_block[best])
        return _ranked(ids, scores, limit)

    def added(self, chunks: Iterable[tuple[int, Sequence[str]]]) -> Postings:
        """Return these postings with more chunks, ids ascending above ``last``."""
        blocks = list(self.blocks)
        batch: list[tuple[int, Hashes]] = []
        for chunk, terms in chunks:
            batch.append((chunk, hashes_of(terms)))
            if len(batch) == BLOCK_CHUNKS:
                _append(blocks, block_of(batch))
                batch = []
        if batch:
            _append(blocks, block_of(batch))
        return _counted(self, blocks)

    def keeping(self, ids: Ids) -> Postings:
        """Return these postings without the chunks that are not in ``ids`` (ascending)."""
        blocks = []
        for block in self.blocks:
            alive = np.isin(block.ids, ids, assume_unique=True)
            if alive.any():
                blocks.append(replace(block, alive=None if alive.all() else alive))
        return _counted(self, [compacted(block) for block in blocks])


def _floor(scores: NDArray[np.float64], limit: int) -> NDArray[np.intp]:
    """Return the places whose score is positive and among the best ``limit``, ties included."""
    held = np.flatnonzero(scores > 0)
    if len(held) <= limit:
        return held
    # Only of those that hold a term: partition takes forty times as long among equal zeros.
    positive = scores[held]
    least = np.partition(positive, len(held) - limit)[len(held) - limit]
    found: NDArray[np.intp] = held[positive >= least]
    return found


def _ranked(
    ids: Sequence[Ids], scores: Sequence[NDArray[np.float64]], limit: int
) -> list[tuple[int, float]]:
    if not ids:
        return []
    every, worth = np.concatenate(ids), np.concatenate(scores)
    order = np.lexsort((every, -worth))[:limit]
    return [(int(every[at]), float(worth[at])) for at in order]


def _append(blocks: list[Block], block: Block) -> None:
    """Add a block, joined with the last ones while those are not much larger than it."""
    while blocks:
        last = blocks[-1]
        together = len(last.ids) + len(block.ids)
        if together > BLOCK_CHUNKS or len(last.ids) > 4 * len(block.ids):
            break
        block = joined(blocks.pop(), block)
    blocks.append(block)


def _counted(before: Postings, blocks: Sequence[Block]) -> Postings:
    last = max([before.last, *(int(block.ids[-1]) for block in blocks if len(block.ids))])
    return replace(
        before,
        blocks=tuple(blocks),
        last=last,
        chunks=sum(block.chunks for block in blocks),
        length=sum(block.length for block in blocks),
    )
