"""What an earlier classifier already says, as columns that a new one may lean on.

A few labels of one's own say little about most words; a classifier of other texts says something about
all of them. Its scores stand beside the vectors in training and are folded into the new weights after
it, so that prediction costs the same and the file stands alone. Never used where it saw the examples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ondol.core.types import FloatMatrix
from ondol.services.tasks.classifier import Classifier, Floats, Head, logits
from ondol.services.tasks.logistic import FitOptions
from ondol.text.char_ngrams import Grams

_MOST_SEEN = 0.1  # short texts ("good") occur everywhere; one example in ten does not by chance
_SPREAD = 0.5


@dataclass(frozen=True, slots=True)
class Start:
    """The scores of an earlier head: ``columns`` (texts, labels) are centred, times ``gain``."""

    columns: FloatMatrix
    gain: float
    head: Head
    mean: FloatMatrix
    scale: FloatMatrix

    def folded(self, head: Head, mean: FloatMatrix, scale: FloatMatrix) -> Head:
        """Return ``head``, trained with the columns last, as one that needs no columns.

        ``mean`` and ``scale`` standardise the vectors that ``head`` reads.
        """
        wide = len(head.bias)
        centred = np.eye(wide) - 1.0 / wide
        mix = self.gain * centred @ head.dense[-wide:].astype(np.float64)
        dense = head.dense[:-wide].astype(np.float64)
        bias = head.bias + self.head.bias @ mix
        if len(self.head.dense):
            raw = self.scale.astype(np.float64)[:, None] * self.head.dense @ mix
            dense = dense + raw / scale[:, None]
            bias = bias + (mean - self.mean).astype(np.float64) @ raw
        return Head(
            dense=dense.astype(np.float32),
            grams=(head.grams + self.head.grams @ mix).astype(np.float32),
            bias=bias.astype(np.float32),
            temperature=head.temperature,
        )


def usable(
    earlier: Classifier | None,
    *,
    labels: Sequence[str],
    embedder: str,
    dimensions: int,
    texts: Sequence[str],
) -> Classifier | None:
    """Return ``earlier``, or ``None`` where it is no help; the order of its labels does not matter.

    It is none with other labels or another embedder, and where it was trained on these texts: then its
    scores would look better than they are. One that does not say what it saw counts as having seen all.
    """
    if earlier is None or sorted(earlier.labels) != sorted(labels) or not len(earlier.seen):
        return None
    known = np.isin(marks_of(texts), earlier.seen).mean() if texts else 1.0
    if not earlier.fits(embedder, dimensions) or known > _MOST_SEEN:
        return None
    return earlier


def start_of(earlier: Classifier, head: Head, vectors: FloatMatrix | None, grams: Grams) -> Start:
    """Return what ``head`` of ``earlier`` says about the texts of ``grams`` with their ``vectors``."""
    rows = None if vectors is None else (vectors - earlier.mean) * earlier.scale
    scores: Floats = logits(head, rows, grams)
    scores -= scores.mean(axis=1, keepdims=True)
    gain = _SPREAD / max(float(scores.std()), 1e-9)
    columns = (scores * gain).astype(np.float32)
    return Start(columns, gain, head, earlier.mean, earlier.scale)


def leaning(options: FitOptions) -> FitOptions:
    """Return options for training from a start: what departs from it must earn more (docs/log.md)."""
    return replace(
        options,
        dense_penalty=2.0 * options.dense_penalty,
        gram_penalty=2.25 * options.gram_penalty,
    )


def marks_of(texts: Sequence[str]) -> NDArray[np.uint32]:
    """Return 32 bits of each text's hash: enough to tell whether it was seen, not what it said."""
    digests = b"".join(
        hashlib.sha256(text.strip().encode("utf-8", "replace")).digest()[:4] for text in texts
    )
    return np.frombuffer(digests, dtype="<u4").astype(np.uint32)
