"""How many hits are enough: recall at k hits against what k hits are to read.

Pure. The smallest k is chosen whose recall is within ``WITHIN`` of the largest tried, on questions
that choose; it is used only where questions that did not choose lose no more either. Hits count, as
``retrieval.top_k`` counts them: several may be of one document. Tokens are estimated, see
``text.selection.estimate_tokens``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ondol.core.types import Hit
from ondol.services.evaluation.datasets import Query
from ondol.services.evaluation.statistics import recall
from ondol.text.selection import estimate_tokens

TRIED = (3, 5, 10, 15, 20)
WITHIN = 0.01
"""Recall that a smaller k may cost."""


@dataclass(frozen=True, slots=True)
class _Read:
    """The hits of one question, best first: whether documents are relevant, what each is to read."""

    query: Query
    documents: tuple[str, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Depth:
    """Mean recall of the documents among the first ``k`` hits, and mean tokens of those hits."""

    k: int
    recall: float
    tokens: float


@dataclass(slots=True)
class HitLog:
    """What was hit, question by question, in one asking of them all."""

    _reads: list[_Read] = field(default_factory=list)

    def add(self, query: Query, documents: Sequence[str], hits: Sequence[Hit]) -> None:
        """Note the ``hits`` of ``query``, best first; ``documents`` are what each is of."""
        tokens = tuple(estimate_tokens(hit.text) for hit in hits)
        self._reads.append(_Read(query, tuple(documents), tokens))

    def at(self, k: int) -> Depth:
        """Return the means at ``k`` hits; zeros where nothing was asked."""
        count = max(1, len(self._reads))
        found = sum(recall(one.documents, one.query.relevant, k=k) for one in self._reads)
        return Depth(k, found / count, sum(sum(one.tokens[:k]) for one in self._reads) / count)


@dataclass(frozen=True, slots=True)
class DepthChoice:
    """Which k to use, and why. ``curve`` is of the half that chose, the others of the one that decides.

    ``before`` is at what is set now, everything as it is; ``now`` at the same k under the settings
    and the cut to use; ``wanted`` at the k that was chosen there.
    """

    curve: tuple[Depth, ...]
    before: Depth
    now: Depth
    wanted: Depth
    adopted: bool

    @property
    def k(self) -> int:
        return self.wanted.k if self.adopted else self.before.k

    def as_json(self) -> dict[str, Any]:
        return {"k": self.k, **asdict(self)}


def tried(current: int) -> tuple[int, ...]:
    """Return the ks to compare where ``current`` is set."""
    return tuple(sorted({*TRIED, current}))


def choose_depth(choosing: HitLog, deciding: HitLog, before: HitLog, current: int) -> DepthChoice:
    """Choose by the hits of one half, decide by those of the other; ``before`` are its hits today."""
    curve = tuple(choosing.at(k) for k in tried(current))
    enough = max(one.recall for one in curve) - WITHIN
    wanted = deciding.at(next(one.k for one in curve if one.recall >= enough))
    now, old = deciding.at(current), before.at(current)
    if wanted.k > current:  # more to read must find more
        adopted = wanted.recall > now.recall + WITHIN
    else:  # less to find must be less to read
        enough = max(now.recall, old.recall) - WITHIN
        adopted = wanted.tokens < now.tokens and wanted.recall >= enough
    return DepthChoice(curve, before=old, now=now, wanted=wanted, adopted=adopted)
