"""ONNX Runtime encoder: an embedder or a reranker from one ``.onnx`` and one ``tokenizer.json``.

Owns a session and a tokenizer. Pads inside a batch, returns pooled float32 rows or raw logits.
Knows no queue; exactly one thread calls ``run``. Source: onnxruntime Python API, tokenizers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

from ondol.backends.base import EncoderSpec
from ondol.core.errors import BackendError, InvalidInput, ModelError, OndolError, TextTooLong
from ondol.core.types import Encoded, FloatMatrix, Pair

Pooling = Literal["mean", "cls", "none"]


class OnnxEncoder:
    """Runs an ONNX encoder on the CPU.

    ``pooling`` is used when the graph has no ``sentence_embedding`` output; ``none`` means the
    first output is a logit per item (a reranker).
    """

    def __init__(
        self,
        model_path: Path,
        tokenizer_path: Path,
        *,
        spec: EncoderSpec,
        threads: int,
        pooling: Pooling,
    ) -> None:
        self._spec = spec
        self._pooling = pooling
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer_path))
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()
            self._session = ort.InferenceSession(
                str(model_path), _options(threads), providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ModelError(
                f"{spec.model} ({spec.form}) could not be loaded: {error}",
                hint=f"fetch it anew: ondol models pull {spec.model} --force",
            ) from error
        self._spec = replace(spec, vocabulary=self._tokenizer.get_vocab_size())
        self._inputs = [node.name for node in self._session.get_inputs()]
        outputs = [node.name for node in self._session.get_outputs()]
        self._output = "sentence_embedding" if "sentence_embedding" in outputs else outputs[0]
        self._pad_id = _pad_id(self._tokenizer)

    @property
    def spec(self) -> EncoderSpec:
        return self._spec

    def tokenize(
        self, items: Sequence[str | Pair], *, truncate: bool
    ) -> list[Encoded | OndolError]:
        """Tokenise each item alone; see ``backends.base.Encoder``."""
        inputs: list[Any] = [(i.query, i.document) if isinstance(i, Pair) else i for i in items]
        try:
            encodings: list[Any] = self._tokenizer.encode_batch_fast(inputs)
        except Exception:
            encodings = [self._encode_alone(i) for i in inputs]
        return [
            e if isinstance(e, OndolError) else self._fit(e.ids, e.type_ids, truncate=truncate)
            for e in encodings
        ]

    def run(self, batch: Sequence[Encoded]) -> FloatMatrix:
        """Return float32 ``(n, dimensions)`` for ``batch``; raises ``BackendError``."""
        feeds = self._feeds(batch)
        try:
            output = self._session.run([self._output], feeds)[0]
        except Exception as error:
            raise BackendError(
                f"{self._spec.model} failed on a batch of {len(batch)}: {error}",
                hint="lower models.token_budget if memory is short",
            ) from error
        pooled = np.asarray(output, dtype=np.float32)
        if pooled.ndim == 3:
            pooled = _pool(pooled, feeds["attention_mask"], self._pooling)
        if not np.isfinite(pooled).all():
            raise BackendError(
                f"{self._spec.model} returned values that are not finite",
                hint="use the reference form: models.form = 'onnx:fp32'",
            )
        return pooled.reshape(len(batch), -1)

    def close(self) -> None:
        """Release the session's memory."""
        self.__dict__.pop("_session", None)

    def _encode_alone(self, item: Any) -> Any:
        try:
            return (
                self._tokenizer.encode(*item)
                if isinstance(item, tuple)
                else self._tokenizer.encode(item)
            )
        except Exception as error:
            return InvalidInput(
                f"the text could not be tokenised: {error}",
                hint="send valid Unicode text without lone surrogates",
            )

    def _fit(self, ids: list[int], type_ids: list[int], *, truncate: bool) -> Encoded | TextTooLong:
        limit = self._spec.max_tokens
        if len(ids) <= limit:
            return Encoded(ids=ids, type_ids=type_ids)
        first = sum(1 for t in type_ids if t == 0) if type_ids[-1] else 0
        if not truncate or first >= limit - 1:
            return TextTooLong(
                f"the text has {len(ids)} tokens, {self._spec.model} takes {limit}",
                hint="shorten or chunk the text, or send truncate=true to cut it",
            )
        return Encoded(
            ids=[*ids[: limit - 1], ids[-1]], type_ids=[*type_ids[: limit - 1], type_ids[-1]]
        )

    def _feeds(self, batch: Sequence[Encoded]) -> dict[str, np.ndarray[Any, np.dtype[np.int64]]]:
        longest = max(item.tokens for item in batch)
        shape = (len(batch), longest)
        ids = np.full(shape, self._pad_id, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        types = np.zeros(shape, dtype=np.int64)
        for row, item in enumerate(batch):
            ids[row, : item.tokens] = item.ids
            mask[row, : item.tokens] = 1
            types[row, : item.tokens] = item.type_ids
        feeds = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self._inputs:
            feeds["token_type_ids"] = types
        return feeds


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _pad_id(tokenizer: Tokenizer) -> int:
    for token in ("<pad>", "[PAD]"):
        found = tokenizer.token_to_id(token)
        if found is not None:
            return int(found)
    return 0


def _pool(
    hidden: FloatMatrix, mask: np.ndarray[Any, np.dtype[np.int64]], pooling: Pooling
) -> FloatMatrix:
    if pooling != "mean":
        return hidden[:, 0, :]
    weights = mask[:, :, None].astype(np.float32)
    pooled: FloatMatrix = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
    return pooled
