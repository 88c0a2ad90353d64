"""How close a form's outputs are to the reference form's: pure functions on arrays, and the gate.

The *loss* of an embedder's form is the largest of: 1 - mean cosine, the relative drop of Spearman's
rho on rated pairs, and the relative drop of nDCG@10. A reranker's is the larger of 1 - mean cosine
of the score vectors and the relative nDCG drop. A drop counts as far as it exceeds its standard
error, since a small sample moves by chance; a gain counts as no loss. Knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ondol.core.types import FloatMatrix
from ondol.models.agreement import Vector, cosines, kendall_tau

Band = Literal["kept", "tolerable", "rejected"]

KEPT = 0.95
TOLERABLE = 0.90
JACKKNIFE = 200
BATCH_MATES = 0.9995
"""Least cosine of a text alone to itself among mates; below it a form is marked, never default."""


@dataclass(frozen=True, slots=True)
class EmbedderFidelity:
    """An embedder's form against the reference; figures that were not measured are ``None``."""

    texts: int
    cosine_mean: float
    cosine_p1: float
    cosine_min: float
    sts_spearman: float | None = None
    sts_spearman_reference: float | None = None
    sts_drop_error: float = 0.0
    ndcg_at_10: float | None = None
    ndcg_at_10_reference: float | None = None
    ndcg_drop_error: float = 0.0
    batch_mates: float | None = None

    @property
    def loss(self) -> float:
        """The largest relative loss, from 0 (none) up."""
        return max(
            0.0,
            1.0 - self.cosine_mean,
            relative_drop(
                self.sts_spearman_reference, self.sts_spearman, error=self.sts_drop_error
            ),
            relative_drop(self.ndcg_at_10_reference, self.ndcg_at_10, error=self.ndcg_drop_error),
        )

    @property
    def batch_invariant(self) -> bool:
        """Whether a text keeps its vector whatever shares its batch; true where not measured."""
        return self.batch_mates is None or self.batch_mates >= BATCH_MATES

    def passes(self, max_loss: float) -> bool:
        """Whether the loss is within ``max_loss`` (0.03 is 3 %)."""
        return self.loss <= max_loss


@dataclass(frozen=True, slots=True)
class RerankerFidelity:
    """A reranker's form against the reference, over ``queries`` lists of passages.

    ``cosine_*`` compare a query's score vectors (raw logits), averaged over queries or the least.
    Kendall's tau and the first places are no part of the loss: one swap among irrelevant passages
    moves them and no result.
    """

    queries: int
    cosine_mean: float
    cosine_min: float
    kendall_tau: float
    top1_agreement: float
    ndcg_at_10: float | None = None
    ndcg_at_10_reference: float | None = None
    ndcg_drop_error: float = 0.0
    batch_mates: float | None = None

    @property
    def band(self) -> Band:
        """The classic reading of the score cosine: kept, tolerable or rejected."""
        return band(self.cosine_mean)

    @property
    def loss(self) -> float:
        """The largest relative loss, from 0 (none) up."""
        return max(
            0.0,
            1.0 - self.cosine_mean,
            relative_drop(self.ndcg_at_10_reference, self.ndcg_at_10, error=self.ndcg_drop_error),
        )

    @property
    def batch_invariant(self) -> bool:
        """Whether a pair keeps its score whatever shares its batch; true where not measured."""
        return self.batch_mates is None or self.batch_mates >= BATCH_MATES

    def passes(self, max_loss: float) -> bool:
        """Whether the loss is within ``max_loss`` and the score cosine is not in the lowest band."""
        return self.loss <= max_loss and self.band != "rejected"


Fidelity = EmbedderFidelity | RerankerFidelity


def pair_similarities(rows: FloatMatrix) -> Vector:
    """Return the cosine of rows 0 and 1, 2 and 3, … of ``rows`` (an even number of them)."""
    return cosines(rows[0::2], rows[1::2])


def ranks(values: Sequence[float] | NDArray[Any]) -> Vector:
    """Return ranks from 1; equal values share the mean of their ranks."""
    array = np.asarray(values, dtype=np.float64)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    shared: Vector = (ends - (counts - 1) / 2.0)[inverse]
    return shared


def spearman(left: Sequence[float] | NDArray[Any], right: Sequence[float] | NDArray[Any]) -> float:
    """Return Spearman's rho, ties by mean ranks; 0 where either side is constant."""
    a, b = ranks(left), ranks(right)
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale else 0.0


def top1_agreement(reference: Sequence[FloatMatrix], other: Sequence[FloatMatrix]) -> float:
    """Return the share of queries whose best passage is the reference's best one."""
    same = [int(np.argmax(r)) == int(np.argmax(o)) for r, o in zip(reference, other, strict=True)]
    return sum(same) / len(same)


def band(cosine: float) -> Band:
    """Return how a score cosine reads: from 0.95 kept, from 0.90 tolerable, below rejected."""
    if cosine >= KEPT:
        return "kept"
    return "tolerable" if cosine >= TOLERABLE else "rejected"


def relative_drop(reference: float | None, measured: float | None, *, error: float = 0.0) -> float:
    """Return how much ``measured`` lies below ``reference`` beyond ``error``, as a share of it.

    0 for a gain, and where either was not measured.
    """
    if reference is None or measured is None or reference <= 0:
        return 0.0
    return max(0.0, (reference - measured - error) / reference)


def spearman_drop_error(reference: Vector, measured: Vector, scores: Sequence[float]) -> float:
    """Return the standard error of ``spearman(reference, …) - spearman(measured, …)``.

    By the jackknife over at most ``JACKKNIFE`` groups of pairs (Efron & Tibshirani 1993, chapter 11);
    the two share their pairs, so most of the chance in either cancels. 0 for fewer than three pairs.
    """
    judged = np.asarray(scores, dtype=np.float64)
    groups = min(len(judged), JACKKNIFE)
    if groups < 3:
        return 0.0
    member = np.arange(len(judged)) % groups
    drops = np.empty(groups)
    for group in range(groups):
        kept = member != group
        before, after = (spearman(side[kept], judged[kept]) for side in (reference, measured))
        drops[group] = before - after
    return float(np.sqrt((groups - 1) / groups * ((drops - drops.mean()) ** 2).sum()))


def mean_error(differences: Sequence[float] | NDArray[Any]) -> float:
    """Return the standard error of the mean of ``differences``; 0 for fewer than two."""
    array = np.asarray(differences, dtype=np.float64)
    return float(array.std(ddof=1) / np.sqrt(len(array))) if len(array) > 1 else 0.0


def compare_embeddings(reference: FloatMatrix, other: FloatMatrix) -> EmbedderFidelity:
    """Return the cosine figures of two ``(texts, dimensions)`` matrices, row by row."""
    found = cosines(reference, other)
    return EmbedderFidelity(
        texts=len(found),
        cosine_mean=float(found.mean()),
        cosine_p1=float(np.quantile(found, 0.01)),
        cosine_min=float(found.min()),
    )


def compare_scores(
    reference: Sequence[FloatMatrix], other: Sequence[FloatMatrix]
) -> RerankerFidelity:
    """Return the figures of two lists of score vectors, one vector a query."""
    found = [
        float(cosines(r.reshape(1, -1), o.reshape(1, -1))[0])
        for r, o in zip(reference, other, strict=True)
    ]
    taus = [kendall_tau(r.ravel(), o.ravel()) for r, o in zip(reference, other, strict=True)]
    return RerankerFidelity(
        queries=len(found),
        cosine_mean=float(np.mean(found)),
        cosine_min=float(np.min(found)),
        kendall_tau=float(np.mean(taus)),
        top1_agreement=top1_agreement(reference, other),
    )
