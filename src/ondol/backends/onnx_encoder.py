"""ONNX Runtime encoder: an embedder or a reranker from one ``.onnx`` and one ``tokenizer.json``.

Owns a session and a tokenizer. Pads inside a batch, returns pooled float32 rows or raw logits.
Knows no queue; exactly one thread calls ``run``. Source: onnxruntime Python API.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort

from ondol.backends.protocols import EncoderSpec, finite_rows, load_failure, run_failure
from ondol.backends.tokenizer import IntMatrix, TextTokenizer
from ondol.core.errors import OndolError
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
        self._pooling = pooling
        try:
            self._tokenizer = TextTokenizer(
                tokenizer_path, model=spec.model, max_tokens=spec.max_tokens
            )
            self._session = ort.InferenceSession(
                str(model_path), _options(threads), providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise load_failure(error, spec=spec) from error
        self._spec = replace(spec, vocabulary=self._tokenizer.vocabulary)
        self._inputs = [node.name for node in self._session.get_inputs()]
        outputs = [node.name for node in self._session.get_outputs()]
        self._output = "sentence_embedding" if "sentence_embedding" in outputs else outputs[0]

    @property
    def spec(self) -> EncoderSpec:
        return self._spec

    def tokenize(
        self, items: Sequence[str | Pair], *, truncate: bool
    ) -> list[Encoded | OndolError]:
        """Tokenise each item alone; see ``backends.base.Encoder``."""
        return self._tokenizer.tokenize(items, truncate=truncate)

    def run(self, batch: Sequence[Encoded]) -> FloatMatrix:
        """Return float32 ``(n, dimensions)`` for ``batch``; raises ``BackendError``."""
        padded = self._tokenizer.pad(batch, dtype=np.int64)
        feeds = {"input_ids": padded.ids, "attention_mask": padded.mask}
        if "token_type_ids" in self._inputs:
            feeds["token_type_ids"] = padded.types
        try:
            output = self._session.run([self._output], feeds)[0]
        except Exception as error:
            raise run_failure(error, spec=self._spec, items=len(batch)) from error
        pooled = np.asarray(output, dtype=np.float32)
        if pooled.ndim == 3:
            pooled = _pool(pooled, padded.mask, self._pooling)
        return finite_rows(pooled, spec=self._spec, items=len(batch))

    def close(self) -> None:
        """Release the session's memory."""
        self.__dict__.pop("_session", None)


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _pool(hidden: FloatMatrix, mask: IntMatrix, pooling: Pooling) -> FloatMatrix:
    if pooling != "mean":
        return hidden[:, 0, :]
    weights = mask[:, :, None].astype(np.float32)
    pooled: FloatMatrix = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
    return pooled
