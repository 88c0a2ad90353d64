"""Turns the files of an encoder into a running backend, which is imported only then.

``auto`` is the model's first form: for converted models that is ``onnx:int8``, whose vectors were
measured against ``onnx:fp32`` (docs/concepts/models.md has the figures).
"""

from __future__ import annotations

from ondol.backends.base import Encoder, EncoderSpec
from ondol.core.errors import ModelError
from ondol.models.convert import ensure_form, resolve_form
from ondol.models.library import ModelFiles


def load_encoder(files: ModelFiles, *, form: str = "auto", threads: int) -> Encoder:
    """Load an embedder or reranker with ``threads`` threads, converting ``form`` if it is missing.

    Raises ``ModelError`` when the model is no encoder, has no such form, or cannot be loaded.
    """
    entry = files.entry
    if entry.role == "generator" or files.tokenizer_path is None:
        raise ModelError(
            f"{entry.id} is a {entry.role}, not an embedder or reranker",
            hint="see `ondol models list --role embedder`",
        )
    full = resolve_form(entry, form)
    path = ensure_form(entry, files.folder, form=full, lock=files.lock_path)
    from ondol.backends.onnx_encoder import OnnxEncoder

    spec = EncoderSpec(
        model=entry.id,
        form=full,
        role=entry.role,
        dimensions=1 if entry.role == "reranker" else entry.dimensions or 0,
        max_tokens=entry.max_tokens,
    )
    return OnnxEncoder(
        path, files.tokenizer_path, spec=spec, threads=threads, pooling=entry.pooling
    )
