"""Texts to vectors: role prefixes, batching, normalisation, fewer dimensions on request.

Owns no model: items go to the embedder's lane. Vectors leave L2-normalised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from ondol.core.errors import InvalidInput, OndolError, TextTooLong
from ondol.core.events import NullObserver, Observer, Timing
from ondol.core.settings.lane_sections import LanesSettings
from ondol.core.types import Encoded, FloatMatrix, TextRole
from ondol.runtime.encoders.batcher import BatchResult
from ondol.runtime.encoders.encoder_lane import EncoderLane
from ondol.runtime.outcomes import finished


@dataclass(frozen=True, slots=True)
class EmbeddingResult:
    """L2-normalised float32 ``vectors`` of shape ``(texts, dimensions)``, and true token count."""

    vectors: FloatMatrix
    tokens: int
    model: str


class EmbeddingService:
    """Embeds texts for search (``query``) or for storing (``document``)."""

    def __init__(
        self,
        lane: EncoderLane,
        *,
        query_prefix: str = "",
        document_prefix: str = "",
        lanes: LanesSettings | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._encoder = lane
        self._lanes = lanes or LanesSettings()
        self._prefixes: dict[TextRole, str] = {"query": query_prefix, "document": document_prefix}
        self._observer = observer or NullObserver()

    @property
    def model(self) -> str:
        return self._encoder.spec.model

    @property
    def dimensions(self) -> int:
        return self._encoder.spec.dimensions

    @property
    def max_tokens(self) -> int:
        return self._encoder.spec.max_tokens

    async def embed(
        self,
        texts: Sequence[str] | Sequence[Sequence[int]],
        *,
        role: TextRole,
        truncate: bool = False,
        dimensions: int | None = None,
        timing: Timing | None = None,
        lane: str | None = "embeddings",
    ) -> EmbeddingResult:
        """Embed ``texts`` in order; raises the first item's error with ``param="input[i]"``.

        Lists of token ids are taken as they are: no prefix and no special tokens are added.
        ``dimensions`` keeps the first so many and normalises again. The ``batch`` lane yields to
        every other.
        """
        result, model = await self._run(texts, role, truncate, timing, lane)
        for index, value in enumerate(result.values):
            if isinstance(value, OndolError):
                value.param = value.param or f"input[{index}]"
                raise value
        vectors = normalise(np.stack(result.values), dimensions=dimensions)  # type: ignore[arg-type]
        return EmbeddingResult(vectors=vectors, tokens=sum(result.tokens), model=model)

    async def embed_each(
        self, texts: Sequence[str], *, role: TextRole, lane: str | None = "batch"
    ) -> list[FloatMatrix | OndolError]:
        """Embed ``texts``, truncating; a text that fails yields its error, the others go on."""
        result, _ = await self._run(texts, role, True, None, lane)
        return [
            value if isinstance(value, OndolError) else normalise(value.reshape(1, -1))[0]
            for value in result.values
        ]

    async def _run(
        self,
        texts: Sequence[str] | Sequence[Sequence[int]],
        role: TextRole,
        truncate: bool,
        timing: Timing | None,
        lane: str | None,
    ) -> tuple[BatchResult, str]:
        if not texts:
            raise InvalidInput("input is empty", hint="send at least one text", param="input")
        prefix = self._prefixes[role]
        items = [
            f"{prefix}{text}" if isinstance(text, str) else self._token_ids(index, text, truncate)
            for index, text in enumerate(cast("Sequence[str | Sequence[int]]", texts))
        ]
        timing = timing or Timing()
        with finished(
            self._observer,
            lane=lane,
            model=self.model,
            timing=timing,
            promise_ms=self._lanes.promise_ms(lane),
        ) as note:
            result = await self._encoder.submit(
                items,
                truncate=truncate,
                urgent=lane != "batch",
                timing=timing,
            )
            note(tokens_in=sum(result.tokens))
        return result, self.model

    def _token_ids(self, index: int, ids: Sequence[int], truncate: bool) -> Encoded:
        spec = self._encoder.spec
        name = f"input[{index}]"
        if spec.form.endswith("+trimmed"):
            raise InvalidInput(
                f"{name} is token ids, but {spec.model} runs with a trimmed vocabulary",
                hint="send text, or run a form without +trimmed",
                param=name,
            )
        if not ids or not all(0 <= i < (spec.vocabulary or i + 1) for i in ids):
            raise InvalidInput(
                f"{name} is empty or holds token ids outside 0…{spec.vocabulary - 1}",
                hint=f"send text, or ids of {spec.model}'s own tokenizer",
                param=name,
            )
        if len(ids) > spec.max_tokens and not truncate:
            raise TextTooLong(
                f"{name} has {len(ids)} tokens, {spec.model} takes {spec.max_tokens}",
                hint="send fewer ids, or truncate=true to cut them",
                param=name,
            )
        ids = ids[: spec.max_tokens]
        return Encoded(ids=ids, type_ids=[0] * len(ids))


def normalise(rows: FloatMatrix, *, dimensions: int | None = None) -> FloatMatrix:
    """Cut ``rows`` to ``dimensions`` columns and scale each to length 1."""
    if dimensions is not None:
        if not 1 <= dimensions <= rows.shape[1]:
            raise InvalidInput(
                f"dimensions = {dimensions}, this model gives 1 to {rows.shape[1]}",
                hint="ask for fewer dimensions, or leave the field out",
                param="dimensions",
            )
        rows = rows[:, :dimensions]
    # Not np.linalg.norm: for one row it takes longer than everything else here.
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    unit: FloatMatrix = rows / np.maximum(norms, np.float32(1e-12))[:, None]
    return unit
