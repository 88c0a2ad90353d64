"""Whether a tuned model's default form still says what its weights say.

Fewer bits suit some weights less than others, and these are new. The catalogue's first form that can
run here is held against the reference on the collection's own texts; one that loses too much gives
way to the next. ``ondol tune`` measures the others, as for any model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ondol.backends.protocols import EncoderBackend
from ondol.core.types import Encoded, FloatMatrix, Pair
from ondol.lab.evaluate.fidelity import compare_embeddings
from ondol.models.catalogue import CatalogueEntry
from ondol.models.forms import REFERENCE, lack_of
from ondol.models.library import ModelFiles
from ondol.models.loading import load_encoder

_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Faithful:
    """The entry with its forms in the order to take them, and the loss of each that was measured."""

    entry: CatalogueEntry
    losses: Mapping[str, float]


def faithful_forms(
    files: ModelFiles, texts: Sequence[str | Pair], *, threads: int, max_loss: float
) -> Faithful:
    """Make the default form of ``files`` and measure it on ``texts``; take the next where it fails.

    A reranker's ``texts`` are pairs; its scores of all of them are compared as one vector.
    The reference itself is always good enough. Raises ``ModelError`` where a form cannot be made.
    """
    entry = files.entry
    reference = _rows(files, REFERENCE, texts, threads=threads)
    losses: dict[str, float] = {}
    failed: set[str] = set()
    for form in entry.forms:
        if form == REFERENCE:
            break
        if lack_of(form) is not None:
            continue
        rows = _rows(files, form, texts, threads=threads)
        losses[form] = compare_embeddings(reference, rows).loss
        if losses[form] <= max_loss:
            break
        failed.add(form)
    kept = tuple(form for form in entry.forms if form not in failed) or (REFERENCE,)
    return Faithful(replace(entry, forms=kept), losses)


def _rows(
    files: ModelFiles, form: str, texts: Sequence[str | Pair], *, threads: int
) -> FloatMatrix:
    encoder = load_encoder(files, form=form, threads=threads)
    try:
        items = [one for one in encoder.tokenize(texts, truncate=True) if isinstance(one, Encoded)]
        rows = _run(encoder, items)
        return rows.reshape(1, -1) if files.entry.role == "reranker" else rows
    finally:
        encoder.close()


def _run(encoder: EncoderBackend, items: Sequence[Encoded]) -> FloatMatrix:
    rows = []
    for start in range(0, len(items), 8):
        batch = items[start : start + 8]
        while batch:
            longest = max(item.tokens for item in batch)
            size = max(1, min(len(batch), _TOKENS // longest))
            rows.append(encoder.run(batch[:size]))
            batch = batch[size:]
    return np.concatenate(rows)
