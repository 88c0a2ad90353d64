"""A block of an inverted index: some thousand chunks, the terms they hold, and how often.

Arrays only, never changed once made. Chunks may be marked dead; joining and compacting give new
blocks. Terms are known by their hash in this process only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

K1 = 1.2
B = 0.75
BLOCK_CHUNKS = 32_768
"""Chunks of one block at most: their places fit into 16 bits, and making one takes some 70 MB."""

Ids = NDArray[np.int64]
Hashes = NDArray[np.int64]

_MOST = np.iinfo(np.uint8).max  # of one term in one chunk; BM25 is flat long before


@dataclass(frozen=True, slots=True)
class Block:
    """Chunks ``ids`` (n,) ascending with their ``lengths`` (n,) in terms.

    ``terms`` (t,) ascending hashes; the chunks of term ``i`` are ``places[starts[i]:starts[i + 1]]``
    (ascending, into ``ids``), each with its ``counts``. ``alive`` (n,) or ``None`` for all.
    """

    ids: Ids
    lengths: NDArray[np.float32]
    terms: Hashes
    starts: NDArray[np.int64]
    places: NDArray[np.uint16]
    counts: NDArray[np.uint8]
    alive: NDArray[np.bool_] | None = None

    @property
    def chunks(self) -> int:
        return len(self.ids) if self.alive is None else int(self.alive.sum())

    @property
    def length(self) -> float:
        lengths = self.lengths if self.alive is None else self.lengths[self.alive]
        return float(lengths.sum(dtype=np.float64))

    @property
    def nbytes(self) -> int:
        arrays = (self.ids, self.lengths, self.terms, self.starts, self.places, self.counts)
        return sum(array.nbytes for array in arrays)

    def spans(self, wanted: Hashes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where the postings of each wanted term begin, and how many there are."""
        if not len(self.terms):
            return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.int64)
        at = np.minimum(np.searchsorted(self.terms, wanted), len(self.terms) - 1)
        held = self.terms[at] == wanted
        first = self.starts[at]
        return first, np.where(held, self.starts[at + 1] - first, 0)

    def gathered(
        self, first: NDArray[np.int64], sizes: NDArray[np.int64]
    ) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Return places and counts of the postings of several terms, one term after another."""
        parts = [slice(a, a + n) for a, n in zip(first.tolist(), sizes.tolist(), strict=True)]
        places = np.concatenate([self.places[part] for part in parts]).astype(np.intp)
        return places, np.concatenate([self.counts[part] for part in parts]).astype(np.float32)


def hashes_of(terms: Sequence[str]) -> Hashes:
    """Return the hash of each term (n,)."""
    return np.fromiter(map(hash, terms), np.int64, len(terms))


def block_of(chunks: Sequence[tuple[int, Hashes]]) -> Block:
    """Return a block of chunks, ids ascending, each with the hashes of its terms, repeats kept."""
    lengths = np.fromiter((len(terms) for _, terms in chunks), np.int64, len(chunks))
    total = int(lengths.sum())
    hashes = np.concatenate([terms for _, terms in chunks])
    places = np.repeat(np.arange(len(chunks), dtype=np.uint16), lengths)
    order = np.argsort(hashes, kind="stable")
    hashes, places = hashes[order], places[order]
    del order
    ids = np.fromiter((chunk for chunk, _ in chunks), np.int64, len(chunks))
    new = np.ones(total, bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (places[1:] != places[:-1])
    at = np.flatnonzero(new)
    counts = np.minimum(np.diff(at, append=total), _MOST).astype(np.uint8)
    terms, starts = _table(hashes[at])
    return Block(ids, lengths.astype(np.float32), terms, starts, places[at], counts)


def _table(hashes: Hashes) -> tuple[Hashes, NDArray[np.int64]]:
    """Return each hash of an ascending run once, and where it begins (and the end)."""
    new = np.ones(len(hashes), bool)
    new[1:] = hashes[1:] != hashes[:-1]
    starts = np.append(np.flatnonzero(new), len(hashes))
    return hashes[new], starts


def joined(one: Block, other: Block) -> Block:
    """Return one block of two; the ids of ``other`` are above those of ``one``."""
    hashes = np.concatenate([_spread(one), _spread(other)])
    order = np.argsort(hashes, kind="stable")
    moved = other.places + np.uint16(len(one.ids))
    terms, starts = _table(hashes[order])
    alive = None
    if one.alive is not None or other.alive is not None:
        alive = np.concatenate([_alive(one), _alive(other)])
    return Block(
        np.concatenate([one.ids, other.ids]),
        np.concatenate([one.lengths, other.lengths]),
        terms,
        starts,
        np.concatenate([one.places, moved])[order],
        np.concatenate([one.counts, other.counts])[order],
        alive,
    )


def compacted(block: Block) -> Block:
    """Return the block without its dead chunks where these are more than a quarter."""
    if block.alive is None or 4 * block.chunks > 3 * len(block.ids):
        return block
    kept = block.alive[block.places]
    terms, starts = _table(_spread(block)[kept])
    moved = np.cumsum(block.alive) - 1
    return Block(
        block.ids[block.alive],
        block.lengths[block.alive],
        terms,
        starts,
        moved[block.places[kept]].astype(np.uint16),
        block.counts[kept],
    )


def _spread(block: Block) -> Hashes:
    return np.repeat(block.terms, np.diff(block.starts))


def _alive(block: Block) -> NDArray[np.bool_]:
    return np.ones(len(block.ids), bool) if block.alive is None else block.alive


def block_scores(
    block: Block, wanted: Hashes, factors: NDArray[np.float64], *, mean: float
) -> NDArray[np.float64] | None:
    """Return the score of every chunk of a block, 0 where it holds no term or is gone."""
    first, sizes = block.spans(wanted)
    held = np.flatnonzero(sizes)
    if not len(held):
        return None
    places, counts = block.gathered(first[held], sizes[held])
    norms = K1 * (1 - B) + (K1 * B / mean) * block.lengths.astype(np.float64)
    parts = np.repeat(factors[held], sizes[held])
    parts *= counts
    parts /= counts + norms[places]
    scores: NDArray[np.float64] = np.zeros(len(block.ids))
    scores += np.bincount(places, weights=parts, minlength=len(block.ids))
    if block.alive is not None:
        scores[~block.alive] = 0.0
    return scores
