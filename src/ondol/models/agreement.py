"""How far two outputs for the same inputs agree: cosine by rows, Kendall's tau of two orders.

Pure, numpy only: the server compares a candidate model by it, the fidelity gate a form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.core.types import FloatMatrix

Vector = NDArray[np.float64]


def cosines(reference: FloatMatrix, other: FloatMatrix) -> Vector:
    """Return the cosine of each row of ``reference`` to the same row of ``other``, in -1…1.

    Raises ``ValueError`` when the shapes differ. Two rows of zeros count as equal.
    """
    if reference.shape != other.shape:
        raise ValueError(f"shapes {reference.shape} and {other.shape} differ")
    left, right = reference.astype(np.float64), other.astype(np.float64)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    products: Vector = (left * right).sum(axis=1)
    nothing = ~left.any(axis=1) & ~right.any(axis=1)
    result: Vector = np.where(nothing, 1.0, products / np.maximum(norms, 1e-300))
    return np.clip(result, -1.0, 1.0)


def kendall_tau(
    left: Sequence[float] | NDArray[Any], right: Sequence[float] | NDArray[Any]
) -> float:
    """Return Kendall's tau-b; 1 for fewer than two values, 0 where a side is constant.

    Tau-b leaves tied pairs out of the denominator, so that two equal lists agree fully whatever
    ties they hold; tau-a does not (Kendall, "The treatment of ties in ranking problems", Biometrika
    1945). Compares every two values, n² of them: meant for lists of up to a few thousand.
    """
    a, b = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if len(a) < 2:
        return 1.0
    upper = np.triu_indices(len(a), k=1)
    da = np.sign(a[:, None] - a[None, :])[upper]
    db = np.sign(b[:, None] - b[None, :])[upper]
    scale = float(np.sqrt(np.count_nonzero(da) * np.count_nonzero(db)))
    return float((da * db).sum()) / scale if scale else 0.0
