"""Contestant without Ondol: ONNX Runtime as a recipe shows it, with its default session options.

Batches of 32, padded to their longest, in order of arrival or sorted by length; ``quantise`` is
``onnxruntime.quantization.quantize_dynamic``, 8-bit per channel. Items are texts or pairs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contestant import claim_stdout, memory, serve


class PlainLoop:
    """A session, a tokenizer and a loop."""

    def load(
        self, *, graph: str, tokenizer: str, threads: int, batch: int, most: int, ordered: bool
    ) -> Mapping[str, Any]:
        started = time.perf_counter()
        import onnxruntime as ort
        from tokenizers import Tokenizer

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._inputs = {node.name for node in self._session.get_inputs()}
        names = [node.name for node in self._session.get_outputs()]
        self._output = "sentence_embedding" if "sentence_embedding" in names else names[0]
        self._tokenizer = Tokenizer.from_file(tokenizer)
        self._tokenizer.enable_truncation(most)
        pad = next(p for p in ("<pad>", "[PAD]") if self._tokenizer.token_to_id(p) is not None)
        self._tokenizer.enable_padding(pad_id=self._tokenizer.token_to_id(pad), pad_token=pad)
        self._batch, self._ordered = batch, ordered
        self._run(["warm up"])
        return {"seconds": time.perf_counter() - started, **memory(reset=True)}

    def texts(self, *, path: str) -> Mapping[str, Any]:
        self._items: list[Any] = json.loads(Path(path).read_text("utf-8"))
        return {"texts": len(self._items)}

    def bulk(self) -> Mapping[str, Any]:
        import numpy as np

        started = time.perf_counter()
        order = list(range(len(self._items)))
        if self._ordered:
            order.sort(key=lambda place: len("".join(self._items[place])))
        rows: Any = None
        for at in range(0, len(order), self._batch):
            places = order[at : at + self._batch]
            found = self._run([self._items[place] for place in places])
            if rows is None:
                rows = np.empty((len(order), found.shape[1]), np.float32)
            rows[places] = found
        self._rows = rows
        return {"seconds": time.perf_counter() - started}

    def lone(self) -> Mapping[str, Any]:
        taken = []
        for item in self._items:
            started = time.perf_counter()
            self._run([item])
            taken.append(time.perf_counter() - started)
        return {"seconds": taken}

    def save(self, *, path: str) -> Mapping[str, Any]:
        """Write the rows of the last ``bulk``: unit vectors, or scores as the model gave them."""
        import numpy as np

        np.save(path, self._rows)
        return {}

    def _run(self, items: Sequence[Any]) -> Any:
        import numpy as np

        encoded = self._tokenizer.encode_batch(
            [item if isinstance(item, str) else tuple(item) for item in items]
        )
        feeds = {
            "input_ids": np.array([e.ids for e in encoded], np.int64),
            "attention_mask": np.array([e.attention_mask for e in encoded], np.int64),
        }
        if "token_type_ids" in self._inputs:
            feeds["token_type_ids"] = np.array([e.type_ids for e in encoded], np.int64)
        rows = self._session.run([self._output], feeds)[0]
        if rows.ndim == 3:
            mask = feeds["attention_mask"][:, :, None].astype(np.float32)
            rows = (rows * mask).sum(axis=1) / mask.sum(axis=1)
        if rows.shape[1] > 1:
            rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return rows


def quantise(*, graph: str, target: str) -> Mapping[str, Any]:
    """Write ``graph`` with dynamic 8-bit weights to ``target``, as a recipe does."""
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic

    started = time.perf_counter()
    quantize_dynamic(
        graph,
        target,
        weight_type=QuantType.QInt8,
        per_channel=True,  # one scale a matrix costs 4 % of cosine here
        extra_options={"DefaultTensorType": TensorProto.FLOAT},  # fused operators have no inference
    )
    return {"seconds": time.perf_counter() - started}


def main() -> None:
    answers = claim_stdout()
    loop = PlainLoop()
    serve(
        {
            "load": loop.load,
            "texts": loop.texts,
            "bulk": loop.bulk,
            "lone": loop.lone,
            "save": loop.save,
            "quantise": quantise,
            "memory": memory,
        },
        answers,
    )


if __name__ == "__main__":
    main()
