"""Texts to unit vectors, and a folder from the Hub to the packed file that does it.

Owns the tokenizer and the prefixes; ``packed_encoder`` runs. Needs an x86 processor with
AVX512-VNNI and AVX512-BF16, on Linux, and numpy and tokenizers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from tokenizers import Tokenizer

from ondol.kernels.bert import FloatArray
from ondol.kernels.calibration import LONGEST, calibration_inputs
from ondol.kernels.calibration.calibration_statistics import Tokens
from ondol.kernels.kernel_error import KernelError
from ondol.kernels.packed_encoder import PackedEncoder, is_built
from ondol.kernels.packed_weights import TextSettings, read_packed, write_packed
from ondol.kernels.processor import NEEDED_FLAGS, processor_suits
from ondol.kernels.safetensors import read_safetensors

_PACKED_NAME = "native.int8.bin"

_BATCH_TOKENS = 8192
"""Tokens that are run at once: enough for many threads, and under 200 MB of workspace at 1,024
hidden channels (20 bytes a channel and token)."""


def pack(folder: Path, *, texts: TextSettings) -> Path:
    """Quantise the BERT or XLM-R embedder in ``folder`` and return the file written there.

    ``folder`` is as on the Hub: ``model.safetensors``, ``config.json`` and the tokenizer that
    ``texts`` names. Weights are rounded against texts of our own; a small model takes a minute.
    Raises ``KernelError`` for files that cannot be read and sizes that the kernels cannot run.

        pack(Path("e5"), texts=TextSettings(query_prefix="query: ", document_prefix="passage: "))
    """
    weights = read_safetensors(folder / "model.safetensors", config=folder / "config.json")
    tokenizer = _tokenizer(folder / texts.tokenizer)
    tokenizer.enable_truncation(min(LONGEST, weights.shape.positions))
    prefixes = (texts.query_prefix, texts.document_prefix)
    items = tokenizer.encode_batch(calibration_inputs(prefixes=prefixes))
    target = folder / _PACKED_NAME
    part = target.with_suffix(".part")
    try:
        write_packed(weights, items, part, texts=texts)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


class Encoder:
    """An embedder on the C kernels; ``open`` one, and ``close`` it or use it in a ``with``.

    One thread calls it at a time; its own workers share each call. A text's vector is the same to
    the last bit, whatever texts are encoded with it and however many threads there are.
    """

    def __init__(self, encoder: PackedEncoder, tokenizer: Tokenizer, texts: TextSettings) -> None:
        self._encoder = encoder
        self._tokenizer = tokenizer
        self._prefixes = {"query": texts.query_prefix, "document": texts.document_prefix}

    @classmethod
    def open(cls, path: str | Path, *, threads: int = 0) -> Self:
        """Map the file ``path`` that ``pack`` or Ondol wrote; its tokenizer lies beside it.

        ``threads`` are worker threads, 0 for one a processor that this process may use. Raises
        ``KernelError`` where the file or the tokenizer cannot be read, for a reranker, and on a
        machine without the kernels; ``MemoryError`` when there is none for the workers.
        """
        _check_machine()
        path = Path(path)
        try:
            weights = read_packed(path)
            texts = weights.texts
            if texts is None or weights.shape.classifier:
                raise ValueError("it does not say how texts are given to an embedder")
            return cls(
                PackedEncoder(
                    weights,
                    threads=threads or len(os.sched_getaffinity(0)),
                    first_token=texts.pooling == "cls",
                ),
                _tokenizer(path.with_name(texts.tokenizer)),
                texts,
            )
        except KernelError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise KernelError(
                f"{path.name} cannot be opened: {error}", hint="pack the model again"
            ) from error

    def encode(self, texts: Sequence[str], *, role: Literal["query", "document"]) -> FloatArray:
        """Return float32 ``(texts, hidden)`` of unit length, in the order of ``texts``.

        ``role`` decides the prefix: what is searched for is a query, what is searched a document.
        Raises ``KernelError`` for a text longer than the model takes (nothing is cut off), for text
        that cannot be tokenised, for values that are not finite, and once closed.

            vectors = encoder.encode(["방바닥을 데우는 난방"], role="document")
        """
        if role not in self._prefixes:
            raise KernelError(f"role is {role!r}", hint="say 'query' or 'document'")
        prefix = self._prefixes[role]
        try:
            tokens = self._tokenizer.encode_batch_fast([prefix + text for text in texts])
        except Exception as error:
            raise KernelError(
                f"a text could not be tokenised: {error}", hint="send valid Unicode text"
            ) from error
        rows = np.concatenate([self._encoder.run(batch) for batch in _batches(tokens)])
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        if not np.isfinite(lengths).all():
            raise KernelError(
                "a vector has values that are not finite", hint="pack the model again"
            )
        vectors: FloatArray = rows / np.maximum(lengths, np.finfo(np.float32).tiny)
        return vectors

    def close(self) -> None:
        """End the worker threads; a second call does nothing."""
        self._encoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_machine() -> None:
    if not processor_suits():
        raise KernelError(
            f"this processor lacks one of {', '.join(sorted(NEEDED_FLAGS))}",
            hint="use a processor with AVX512-VNNI and AVX512-BF16",
        )
    if not is_built():
        raise KernelError(
            "the C kernels were not compiled", hint="install a C compiler, then install Ondol anew"
        )


def _tokenizer(path: Path) -> Any:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise KernelError(
            f"{path.name} is no tokenizer: {error}", hint="fetch tokenizer.json with the model"
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _batches(items: Sequence[Tokens]) -> Iterator[Sequence[Tokens]]:
    """Cut ``items`` into runs of at most ``_BATCH_TOKENS`` tokens, or of one; at least one run."""
    start = tokens = 0
    for place, item in enumerate(items):
        if place > start and tokens + len(item.ids) > _BATCH_TOKENS:
            yield items[start:place]
            start, tokens = place, 0
        tokens += len(item.ids)
    yield items[start:]
