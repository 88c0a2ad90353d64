"""An immutable inverted index in memory: which chunks hold a term how often, and their BM25 scores.

Derived from the lexical table and scored as FTS5's ``bm25()`` scores it, some fifty times faster.
``Postings`` is a few ``Block``s in ascending chunk id; adding or removing chunks gives a new one that
shares the old blocks, so readers need no lock. Terms are known by their hash in this process only.

A block of an inverted index: some thousand chunks, the terms they hold, and how often.

Arrays only, never changed once made. Chunks may be marked dead; joining and compacting give new
blocks. Terms are known by their hash in this process only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

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
