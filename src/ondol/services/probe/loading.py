"""Loads the encoder a probe was asked for; ``fake-embedder`` and ``fake-reranker`` need no weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ondol.backends.base import Encoder
from ondol.backends.fake_encoder import FakeEmbedder, FakeReranker
from ondol.models.library import ModelLibrary
from ondol.models.loading import load_encoder


def load(
    *, model: str, form: str, threads: int, models: str, sources: Sequence[str] = ()
) -> Encoder:
    """Load ``form`` of ``model`` from the folder ``models``; raises ``ModelError`` or ``NotFound``."""
    if model == "fake-embedder":
        return FakeEmbedder()
    if model == "fake-reranker":
        return FakeReranker()
    library = ModelLibrary(
        Path(models), offline=True, extra_sources=[Path(source) for source in sources]
    )
    return load_encoder(library.files(model), form=form, threads=threads)
