"""An immutable matrix of vectors and the exact nearest rows in it.

A ``Matrix`` is a few ``Segment`` blocks in ascending chunk id. Appending or removing rows gives a
new ``Matrix`` that shares the old blocks, so readers need no lock. Values are float16 by truth,
held as float32 (faster) or float16 (half the memory); scores are the same either way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Rows = NDArray[np.floating[Any]]

_BLOCK = 512  # rows converted at a time: 512 x 384 float32 stay in the L2 cache
_SLACK = 1e-5  # above the rounding error of a float32 dot product of unit vectors
_NONE: Ids = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Segment:
    """``ids`` (n,) ascending, ``rows`` (n, d), ``dead``: positions of rows removed since."""

    ids: Ids
    rows: Rows
    dead: Ids = field(default_factory=lambda: _NONE)

    @property
    def alive(self) -> int:
        return len(self.ids) - len(self.dead)

    def places(self, wanted: Ids) -> Ids:
        """Return where those of ``wanted`` (ascending) that are alive here stand, ascending."""
        return _outside(_positions(self.ids, wanted), self.dead)

    def scores(self, query: NDArray[np.float32], places: Ids | None) -> NDArray[np.float32]:
        """Return the dot products of the rows at ``places`` (alive) with ``query``.

        Of all rows where that is ``None``; minus infinity for those that are dead.
        """
        if places is not None:
            return _dots(_take(self.rows, places), query)
        scores = _dots(self.rows, query)
        scores[self.dead] = -np.inf
        return scores

    def living(self, after: int) -> Ids:
        """Return the places of the rows alive whose id is above ``after``, ascending."""
        first = int(np.searchsorted(self.ids, after, side="right"))
        return _outside(np.arange(first, len(self.ids), dtype=np.int64), self.dead)

    def without(self, kept: Ids) -> Segment:
        """Return this segment with only the rows whose id is in ``kept`` (ascending) alive."""
        alive = np.zeros(len(self.ids), bool)
        alive[_positions(self.ids, kept)] = True
        dead = np.flatnonzero(~alive)
        if 4 * len(dead) <= len(self.ids):
            return replace(self, dead=dead)
        return Segment(self.ids[alive], self.rows[alive])

    def compact(self, dtype: np.dtype[Any]) -> Segment:
        """Return this segment in memory as ``dtype``, without dead rows."""
        if not len(self.dead):
            return Segment(self.ids, self.rows.astype(dtype, copy=False))
        ids, rows = np.delete(self.ids, self.dead), np.delete(self.rows, self.dead, axis=0)
        return Segment(ids, rows.astype(dtype, copy=False))


@dataclass(frozen=True, slots=True)
class Matrix:
    """The vectors of one collection as of ``stamp``.

    ``last`` is the highest chunk id ever seen; ``unsaved`` counts the rows added and removed
    since the matrix was on disk.
    """

    dimensions: int
    stamp: str = ""
    segments: tuple[Segment, ...] = ()
    last: int = 0
    unsaved: int = 0

    @property
    def alive(self) -> int:
        return sum(segment.alive for segment in self.segments)

    @property
    def nbytes(self) -> int:
        """Bytes held in memory (a mapped file counts as none)."""
        return sum(s.rows.nbytes for s in self.segments if not isinstance(s.rows, np.memmap))

    def appended(self, ids: Ids, rows: NDArray[np.float16], *, dtype: np.dtype[Any]) -> Matrix:
        """Return the matrix with rows of higher ids added; small blocks merge into larger ones."""
        if not len(ids):
            return self
        segments = [*self.segments, Segment(ids, rows.astype(dtype, copy=False))]
        while len(segments) > 1 and len(segments[-2].ids) < 2 * len(segments[-1].ids):
            later, earlier = segments.pop().compact(dtype), segments.pop().compact(dtype)
            segments.append(
                Segment(
                    np.concatenate((earlier.ids, later.ids)),
                    np.concatenate((earlier.rows, later.rows)),
                )
            )
        return replace(
            self,
            segments=tuple(segments),
            last=max(self.last, int(ids[-1])),
            unsaved=self.unsaved + len(ids),
        )

    def keeping(self, ids: Ids) -> Matrix:
        """Return the matrix with only the rows whose id is in ``ids`` (ascending)."""
        segments = tuple(segment.without(ids) for segment in self.segments)
        removed = self.alive - sum(segment.alive for segment in segments)
        return replace(self, segments=segments, unsaved=self.unsaved + removed)

    def nearest(
        self, query: NDArray[np.float32], *, limit: int, allowed: Ids | None = None
    ) -> list[tuple[int, float]]:
        """Return up to ``limit`` (chunk id, cosine), best first, ties by id; exact.

        ``query`` (d,) is normalised here; ``allowed`` (ascending ids) restricts the rows. The
        float32 pass picks candidates with slack; float64 then decides, so that equal vectors get
        equal scores wherever they lie.
        """
        length = float(np.linalg.norm(query))
        if limit < 1 or not self.alive or not length:
            return []
        unit = (query / length).astype(np.float32)
        chosen = [None if allowed is None else s.places(allowed) for s in self.segments]
        scores = [s.scores(unit, at) for s, at in zip(self.segments, chosen, strict=True)]
        floor = _floor(np.concatenate(scores), limit)
        ids: list[Ids] = []
        exact: list[NDArray[np.float64]] = []
        for segment, own, at in zip(self.segments, scores, chosen, strict=True):
            places = np.flatnonzero(own >= floor)
            places = places if at is None else at[places]
            ids.append(segment.ids[places])
            exact.append(_exact(segment.rows, places, unit))
        found, cosine = np.concatenate(ids), np.concatenate(exact)
        order = np.lexsort((found, -cosine))[:limit]
        return [(int(found[i]), float(cosine[i])) for i in order]

    def holding(self, ids: Ids) -> Ids:
        """Return those of ``ids`` (ascending) that are alive here, ascending."""
        parts = [segment.ids[segment.places(ids)] for segment in self.segments]
        return np.concatenate(parts) if parts else _NONE

    def after(self, last: int) -> Ids:
        """Return the ids above ``last``, ascending."""
        parts = [s.ids[s.living(last)] for s in self.segments if len(s.ids) and s.ids[-1] > last]
        return np.concatenate(parts) if parts else _NONE

    def blocks(self, *, after: int, size: int) -> Iterator[tuple[Ids, Rows]]:
        """Yield the ids above ``after``, ascending, with their rows, ``size`` at a time."""
        for segment in self.segments:
            places = segment.living(after)
            for start in range(0, len(places), size):
                part = places[start : start + size]
                yield segment.ids[part], segment.rows[part]

    def contents(self) -> tuple[Ids, NDArray[np.float16]]:
        """Return all ids (n,) ascending and their rows (n, d) float16, in one piece."""
        parts = [segment.compact(np.dtype(np.float16)) for segment in self.segments]
        if not parts:
            return _NONE, np.empty((0, self.dimensions), np.float16)
        rows = np.concatenate([part.rows for part in parts])
        return np.concatenate([part.ids for part in parts]), rows.astype(np.float16, copy=False)


def _floor(scores: NDArray[np.float32], limit: int) -> float:
    """Return the least float32 score that may still belong to the best ``limit``."""
    if len(scores) > limit:
        kth = float(np.partition(scores, len(scores) - limit)[len(scores) - limit])
        if np.isfinite(kth):
            return kth - _SLACK
    return float(np.finfo(np.float32).min)  # everything but minus infinity


def _positions(ids: Ids, wanted: Ids) -> Ids:
    """Return where those of ``wanted`` that are in ``ids`` stand; both ascending."""
    places = np.searchsorted(ids, wanted)
    inside = places < len(ids)
    places, wanted = places[inside], wanted[inside]
    hits: Ids = places[ids[places] == wanted]
    return hits


def _outside(places: Ids, dead: Ids) -> Ids:
    """Return those of ``places`` that are not in ``dead``; both ascending."""
    if not len(dead):
        return places
    nearest = dead[np.minimum(np.searchsorted(dead, places), len(dead) - 1)]
    alive: Ids = places[nearest != places]
    return alive


def _dots(rows: Rows, query: NDArray[np.float32]) -> NDArray[np.float32]:
    # vecdot stays on this thread; a threaded matrix product is slower here as soon as the model's
    # threads want the same cores (ADR 0009).
    scores = np.empty(len(rows), np.float32)
    if rows.dtype == np.float32:
        return np.vecdot(rows, query, out=scores)
    scratch = np.empty((_BLOCK, rows.shape[1]), np.float32)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        part = scratch[: len(block)]
        np.copyto(part, block)
        np.vecdot(part, query, out=scores[start : start + len(block)])
    return scores


def _take(rows: Rows, places: Ids) -> Rows:
    return rows if len(places) == len(rows) else rows[places]


def _exact(rows: Rows, places: Ids, query: NDArray[np.float32]) -> NDArray[np.float64]:
    cosine = np.empty(len(places), np.float64)
    wide = query.astype(np.float64)
    for start in range(0, len(places), _BLOCK):
        block = rows[places[start : start + _BLOCK]].astype(np.float64)
        cosine[start : start + len(block)] = (block * wide).sum(axis=1)
    return cosine
