"""Writes tiny BERT encoders as ONNX files the way transformers' exporter spells them.

Plain operators only; biases, norms and tables keep their names, matrices are renamed
``onnx::MatMul_N``. ``quantise`` runs ONNX Runtime's own dynamic quantiser over such a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, save
from onnxruntime.quantization import QuantType, quantize_dynamic
from tests.kernels.synthetic_weights import EPS, HEADS, HIDDEN, LAYERS, Array, hub_name

_WIDTH = HIDDEN // HEADS


class ExportedBert:
    """Builds the graph of ``tensors`` (canonical names); change ``nodes`` before ``write``."""

    def __init__(
        self,
        tensors: Mapping[str, Array],
        *,
        head: Mapping[str, Array] | None = None,
        prefix: str = "",
        norm: str = "parts",
        reshape: Sequence[int | None] = (None, None, HEADS, _WIDTH),
    ) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._tensors, self._head = tensors, head
        self._prefix, self._norm_style, self._reshape = prefix, norm, reshape
        self._renamed = 900
        self._build()

    def write(self, path: Path) -> Path:
        output = "logits" if self._head else "last_hidden_state"
        dims = ["b", 1] if self._head else ["b", "s", HIDDEN]
        names = ("input_ids", "attention_mask", "token_type_ids")
        inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["b", "s"]) for n in names]
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, dims)]
        graph = helper.make_graph(self.nodes, "bert", inputs, outputs, self.constants)
        model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
        save(model, str(path))
        return path

    def _build(self) -> None:
        self._node("Shape", ["input_ids"], "shape")
        for index, name in enumerate(("batch", "length")):
            self._store(f"at_{index}", np.array([index], np.int64))
            self._node("Gather", ["shape", f"at_{index}"], name, axis=0)
        self._store("zero", np.array([0], np.int64))
        self._store("places", np.arange(self._tensors["emb.pos"].shape[0], dtype=np.int64)[None])
        self._store("along", np.array([1], np.int64))
        self._node("Slice", ["places", "zero", "length", "along"], "positions")
        self._node("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
        self._store("mask_axes", np.array([1, 2], np.int64))
        self._node("Unsqueeze", ["mask", "mask_axes"], "mask_wide")
        self._node("Sub", [self._scalar("one", 1.0), "mask_wide"], "closed")
        self._node("Mul", ["closed", self._scalar("least", -10000.0)], "mask_bias")
        words = self._lookup("emb.word", "input_ids")
        words = self._node("Add", [words, self._lookup("emb.type", "token_type_ids")], "typed")
        words = self._node("Add", [words, self._lookup("emb.pos", "positions")], "placed")
        hidden = self._norm(words, "emb.ln", "h0")
        for layer in range(LAYERS):
            last = layer == LAYERS - 1 and self._head is None
            hidden = self._layer(
                f"l{layer}.", hidden, "last_hidden_state" if last else f"h{layer + 1}"
            )
        if self._head is not None:
            self._relevance(hidden, self._head)

    def _layer(self, p: str, x: str, out: str) -> str:
        parts = [self._split(p + part, self._dense(x, p + part)) for part in "qkv"]
        keys = self._node("Transpose", [parts[1]], f"{p}kt", perm=[0, 1, 3, 2])
        scores = self._node("MatMul", [parts[0], keys], f"{p}scores")
        scores = self._node("Div", [scores, self._scalar(f"{p}root", _WIDTH**0.5)], f"{p}scaled")
        scores = self._node("Add", [scores, "mask_bias"], f"{p}masked")
        weights = self._node("Softmax", [scores], f"{p}weights", axis=-1)
        mixed = self._node("MatMul", [weights, parts[2]], f"{p}mixed")
        mixed = self._node("Transpose", [mixed], f"{p}joined", perm=[0, 2, 1, 3])
        self._store(f"{p}flat", np.array([0, 0, HIDDEN], np.int64))
        mixed = self._node("Reshape", [mixed, f"{p}flat"], f"{p}att")
        total = self._node("Add", [self._dense(mixed, f"{p}ao"), x], f"{p}skip")
        middle = self._norm(total, f"{p}aln", f"{p}mid")
        wide = self._dense(middle, f"{p}fi")
        erf = self._node("Div", [wide, self._scalar(f"{p}two", 2**0.5)], f"{p}over")
        erf = self._node("Erf", [erf], f"{p}erf")
        erf = self._node("Add", [erf, self._scalar(f"{p}unit", 1.0)], f"{p}up")
        active = self._node("Mul", [wide, erf], f"{p}gated")
        active = self._node("Mul", [active, self._scalar(f"{p}half", 0.5)], f"{p}gelu")
        total = self._node("Add", [self._dense(active, f"{p}fo"), middle], f"{p}skip2")
        return self._norm(total, f"{p}oln", out)

    def _split(self, name: str, x: str) -> str:
        sizes = []
        for place, size in enumerate(self._reshape):
            if size is None:
                sizes.append(("batch", "length")[place])
                continue
            self._store(f"{name}.size{place}", np.array([size], np.int64))
            sizes.append(f"{name}.size{place}")
        target = self._node("Concat", sizes, f"{name}.target", axis=0)
        cut = self._node("Reshape", [x, target], f"{name}.cut")
        return self._node("Transpose", [cut], f"{name}.heads", perm=[0, 2, 1, 3])

    def _dense(self, x: str, name: str) -> str:
        self._renamed += 1
        weights = self._store(f"onnx::MatMul_{self._renamed}", self._tensors[f"{name}.w"].T)
        bias = self._store(self._prefix + hub_name(f"{name}.b"), self._tensors[f"{name}.b"])
        product = self._node("MatMul", [x, weights], f"{name}.product")
        return self._node("Add", [bias, product], f"{name}.sum")

    def _norm(self, x: str, name: str, out: str) -> str:
        scale = self._store(self._prefix + hub_name(f"{name}.w"), self._tensors[f"{name}.w"])
        shift = self._store(self._prefix + hub_name(f"{name}.b"), self._tensors[f"{name}.b"])
        if self._norm_style == "whole":
            inputs = [x, scale, shift]
            return self._node("LayerNormalization", inputs, out, axis=-1, epsilon=EPS)
        mean = self._node("ReduceMean", [x], f"{name}.mean", axes=[-1])
        centred = self._node("Sub", [x, mean], f"{name}.centred")
        squares = self._node("Pow", [centred, self._scalar(f"{name}.two", 2.0)], f"{name}.squares")
        variance = self._node("ReduceMean", [squares], f"{name}.variance", axes=[-1])
        safe = self._node("Add", [variance, self._scalar(f"{name}.eps", EPS)], f"{name}.safe")
        root = self._node("Sqrt", [safe], f"{name}.root")
        divided = self._node("Div", [centred, root], f"{name}.divided")
        scaled = self._node("Mul", [divided, scale], f"{name}.scaled")
        return self._node("Add", [scaled, shift], out)

    def _lookup(self, name: str, ids: str) -> str:
        table = self._store(self._prefix + hub_name(f"{name}.w"), self._tensors[name])
        return self._node("Gather", [table, ids], f"{name}.rows")

    def _relevance(self, hidden: str, head: Mapping[str, Array]) -> None:
        self._store("first", np.array(0, np.int64))
        x = self._node("Gather", [hidden, "first"], "first_token", axis=1)
        for native, out in ((f"{self._prefix}pooler.dense", "pooled"), ("classifier", "logits")):
            names = [native + ".weight", native + ".bias"]
            for name in names:
                self._store(name, head[name.removeprefix(self._prefix)])
            x = self._node("Gemm", [x, *names], out, transB=1)
            if out == "pooled":
                x = self._node("Tanh", [x], "active")

    def _scalar(self, name: str, value: float) -> str:
        tensor = numpy_helper.from_array(np.array(value, np.float32))
        return self._node("Constant", [], name, value=tensor)

    def _store(self, name: str, value: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def _node(self, op: str, inputs: Sequence[str], out: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [out], name=out, **attributes))
        return out


def quantise(source: Path, target: Path, *, per_channel: bool) -> Path:
    """Quantise every matrix and table of ``source`` to 8 bits as optimum does."""
    quantize_dynamic(
        source,
        target,
        per_channel=per_channel,
        weight_type=QuantType.QInt8 if per_channel else QuantType.QUInt8,
    )
    return target
