"""Deterministic encoders without weights, for tests and dry runs.

``FakeEmbedder`` hashes words and character pairs into a vector, so texts that share words are
near; ``FakeReranker`` scores by shared words. A text holding ``<<fail>>`` makes its batch fail.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from ondol.backends.protocols import EncoderSpec
from ondol.core.errors import BackendError, InvalidInput, OndolError, TextTooLong
from ondol.core.types import Encoded, FloatMatrix, Pair

_POISON = "<<fail>>"
_POISON_ID = zlib.crc32(_POISON.encode()) & 0x7FFFFFFF


def _features(text: str) -> list[int]:
    words = text.lower().split()
    pairs = [word[i : i + 2] for word in words for i in range(len(word) - 1)]
    return [zlib.crc32(f.encode()) & 0x7FFFFFFF for f in [*words, *pairs]]


class _FakeEncoder:
    def __init__(self, spec: EncoderSpec) -> None:
        self._spec = spec
        self.batches: list[int] = []

    @property
    def spec(self) -> EncoderSpec:
        return self._spec

    def tokenize(
        self, items: Sequence[str | Pair], *, truncate: bool
    ) -> list[Encoded | OndolError]:
        return [self._tokenize_one(item, truncate=truncate) for item in items]

    def close(self) -> None:
        return None

    def _tokenize_one(self, item: str | Pair, *, truncate: bool) -> Encoded | OndolError:
        texts = (item.query, item.document) if isinstance(item, Pair) else (item,)
        try:
            parts = [_features(text) for text in texts]
        except UnicodeEncodeError as error:
            return InvalidInput(
                f"the text could not be tokenised: {error}", hint="send valid Unicode"
            )
        ids = [0, *(i for part in parts for i in part)]
        types = [0, *(n for n, part in enumerate(parts) for _ in part)]
        words = sum(len(text.split()) for text in texts) + 2
        if words > self._spec.max_tokens and not truncate:
            return TextTooLong(
                f"the text has {words} tokens, {self._spec.model} takes {self._spec.max_tokens}",
                hint="shorten the text, or send truncate=true",
            )
        return Encoded(ids=ids, type_ids=types)

    def _begin(self, batch: Sequence[Encoded]) -> None:
        self.batches.append(len(batch))
        if any(_POISON_ID in item.ids for item in batch):
            raise BackendError(f"the fake model met {_POISON}", hint="remove it")


class FakeEmbedder(_FakeEncoder):
    """Bag-of-features embeddings."""

    def __init__(
        self, *, dimensions: int = 64, max_tokens: int = 512, form: str = "fake:fp32"
    ) -> None:
        super().__init__(
            EncoderSpec(
                model="fake-embedder",
                form=form,
                role="embedder",
                dimensions=dimensions,
                max_tokens=max_tokens,
            )
        )

    def run(self, batch: Sequence[Encoded]) -> FloatMatrix:
        self._begin(batch)
        rows = np.zeros((len(batch), self._spec.dimensions), dtype=np.float32)
        for row, item in enumerate(batch):
            for feature in item.ids:
                rows[row, feature % self._spec.dimensions] += 1.0 if feature & 64 else -1.0
            rows[row, 0] += 0.5
        return rows


class FakeReranker(_FakeEncoder):
    """Shared-feature scores."""

    def __init__(self, *, max_tokens: int = 512, form: str = "fake:fp32") -> None:
        super().__init__(
            EncoderSpec(
                model="fake-reranker",
                form=form,
                role="reranker",
                dimensions=1,
                max_tokens=max_tokens,
            )
        )

    def run(self, batch: Sequence[Encoded]) -> FloatMatrix:
        self._begin(batch)
        scores = []
        for item in batch:
            pairs = list(zip(item.ids, item.type_ids, strict=True))[1:]
            query = {i for i, t in pairs if t == 0}
            document = {i for i, t in pairs if t == 1}
            scores.append(len(query & document) / (len(query) or 1) * 8 - 4)
        return np.asarray(scores, dtype=np.float32).reshape(-1, 1)
