"""Builds the ONNX graph of a BERT encoder straight from its weights: no torch, no tracing.

Inputs ``input_ids`` and ``attention_mask``, int64 ``(batch, sequence)``, padded on the right, and
for a reranker with several segments ``token_type_ids``.
Embedders output ``last_hidden_state`` ``(b, s, h)`` and ``sentence_embedding`` ``(b, h)`` (masked
mean, not normalised); rerankers output ``logits`` ``(b, 1)``. Uses ONNX Runtime's fused operators
(domain ``com.microsoft``, https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md).
Elsewhere the type embedding of segment 0 is folded into the positions. The bytes depend only on
the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ondol.kernels.bert import BLOCK, BertWeights, FloatArray, Q4Matrix, as_float
from ondol.kernels.rounding import quantise_channels

Precision = Literal["fp32", "int8"]

_FUSED = "com.microsoft"
_OPSET = 21
"""The first whose ``DequantizeLinear`` takes 4-bit blocks (``block_size``)."""

_IR_VERSION = 10
"""The one that came with opset 21; older runtimes refuse a newer one."""

_CENTRE = 128
"""The uint8 that stands for 0 in a quantised activation."""


def build_encoder(
    weights: BertWeights,
    *,
    precision: Precision,
    levels: int = 127,
    pooling: Literal["mean", "cls"] = "mean",
) -> Any:
    """Return the encoder as an ``onnx.ModelProto``.

    ``fp32`` is the reference form: every weight at its full value (4-bit word embeddings stay
    packed and are expanded exactly when gathered). ``int8`` multiplies in 8 bits: weights per
    channel at ``levels``, activations per token.
    """
    return _EncoderGraph(weights, precision=precision, levels=levels).build(pooling)


class _EncoderGraph:
    """Collects nodes and constants; each method adds a part and returns its output's name."""

    def __init__(self, weights: BertWeights, *, precision: Precision, levels: int) -> None:
        self._weights = weights
        self._shape = weights.shape
        self._precision = precision
        self._levels = levels
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._quantised: set[str] = set()
        self._inputs = ["input_ids", "attention_mask"]

    def build(self, pooling: Literal["mean", "cls"]) -> Any:
        self._add_shared_constants()
        hidden = self._embeddings()
        self._node("Cast", ["attention_mask"], "mask_int", to=TensorProto.INT32)
        for index in range(self._shape.layers):
            last = index == self._shape.layers - 1
            hidden = self._layer(f"l{index}.", hidden, out="last_hidden_state" if last else None)
        h = self._shape.hidden
        if self._shape.classifier:
            outputs = [(self._relevance(hidden), ["batch", 1])]
        else:
            pooled = (
                self._mean(hidden)
                if pooling == "mean"
                else self._first(hidden, "sentence_embedding")
            )
            outputs = [(pooled, ["batch", h]), (hidden, ["batch", "sequence", h])]
        return self._model(outputs)

    def _add_shared_constants(self) -> None:
        self._constant("axis_0", np.array([0], np.int64))
        if self._precision == "int8":
            self._constant("axis_last", np.array([-1], np.int64))
            self._constant("one", np.array(1, np.float32))
            self._constant("tiny", np.array(1e-9, np.float32))
            self._constant("full_scale", np.array(127, np.float32))
            self._constant("centre", np.array(_CENTRE, np.uint8))
            self._constant("centre_and_half", np.array(_CENTRE + 0.5, np.float32))

    def _embeddings(self) -> str:
        words = self._words()
        positions = as_float(self._weights.matrix("emb.pos"))
        segments = as_float(self._weights.matrix("emb.type"))
        if self._shape.classifier and self._shape.types > 1:
            words = self._with_segments(words, segments)
        else:
            positions = positions + segments[0]
        self._constant("positions", positions)
        self._node("Shape", ["input_ids"], "length", start=1, end=2)
        self._node("Slice", ["positions", "axis_0", "length", "axis_0"], "these_positions")
        self._node("Add", [words, "these_positions"], "embedded")
        norm = [self._vector("emb.ln.w"), self._vector("emb.ln.b")]
        return self._node(
            "LayerNormalization", ["embedded", *norm], "h0", axis=-1, epsilon=self._shape.eps
        )

    def _with_segments(self, words: str, segments: FloatArray) -> str:
        """Tell the two texts of a pair apart, which only a reranker is asked to do."""
        self._inputs.append("token_type_ids")
        self._constant("segments", segments)
        self._node("Gather", ["segments", "token_type_ids"], "segment")
        return self._node("Add", [words, "segment"], "word_in_segment")

    def _words(self) -> str:
        table = self._weights.matrix("emb.word")
        if isinstance(table, Q4Matrix):
            self._packed_constant("words", table)
            self._constant("words.scale", table.scales)
            return self._node(
                "GatherBlockQuantized",
                ["words", "input_ids", "words.scale"],
                "word",
                fused=True,
                block_size=BLOCK,
                gather_axis=0,
                quantize_axis=1,
            )
        if self._precision == "fp32":
            self._constant("words", table)
            return self._node("Gather", ["words", "input_ids"], "word")
        self._constant("words", table.astype(np.float16))
        self._node("Gather", ["words", "input_ids"], "word_half")
        return self._node("Cast", ["word_half"], "word", to=TensorProto.FLOAT)

    def _layer(self, p: str, hidden: str, *, out: str | None) -> str:
        attended = self._attention(p, hidden)
        projected = self._linear(attended, [f"{p}ao.w"], out=f"{p}ao")
        middle = self._skip_norm(projected, hidden, bias=f"{p}ao.b", norm=f"{p}aln", out=f"{p}mid")
        wide = self._linear(middle, [f"{p}fi.w"], out=f"{p}fi")
        active = self._node("BiasGelu", [wide, self._vector(f"{p}fi.b")], f"{p}gelu", fused=True)
        narrow = self._linear(active, [f"{p}fo.w"], out=f"{p}fo")
        return self._skip_norm(
            narrow, middle, bias=f"{p}fo.b", norm=f"{p}oln", out=out or f"{p}out"
        )

    def _attention(self, p: str, hidden: str) -> str:
        bias = np.concatenate([self._weights.vector(f"{p}{part}.b") for part in "qkv"])
        self._constant(f"{p}qkv.b", bias)
        names = [f"{p}{part}.w" for part in "qkv"]
        heads = self._shape.heads
        if self._precision == "fp32":
            self._constant(f"{p}qkv.w", self._stacked(names).T)
            inputs = [hidden, f"{p}qkv.w", f"{p}qkv.b", "mask_int"]
            return self._node("Attention", inputs, f"{p}att", fused=True, num_heads=heads)
        stacked = self._linear(hidden, names, out=f"{p}qkv")
        parts = [f"{p}q", f"{p}k", f"{p}v"]
        self._nodes.append(helper.make_node("Split", [stacked], parts, axis=-1, num_outputs=3))
        inputs = [*parts, f"{p}qkv.b", "mask_int"]
        return self._node("MultiHeadAttention", inputs, f"{p}att", fused=True, num_heads=heads)

    def _linear(self, x: str, names: Sequence[str], *, out: str) -> str:
        """Multiply by the transposed weights ``names``, stacked; the bias is left to what follows."""
        stacked = self._stacked(names)
        if self._precision == "fp32":
            self._constant(f"{out}.w", stacked.T)
            return self._node("MatMul", [x, f"{out}.w"], f"{out}.y")
        weights = quantise_channels(stacked, levels=self._levels)
        self._constant(f"{out}.w", weights.values)
        self._constant(f"{out}.scale", weights.scales)
        self._quantise_rows(x)
        inputs = [f"{x}.u8", f"{out}.w", "one", f"{out}.scale", "centre"]
        self._node("MatMulIntegerToFloat", inputs, f"{out}.raw", fused=True)
        return self._node("Mul", [f"{out}.raw", f"{x}.scale"], f"{out}.y")

    def _quantise_rows(self, x: str) -> None:
        """Add ``x.u8`` and ``x.scale``: each token's largest magnitude becomes 127 around 128."""
        if x in self._quantised:
            return
        self._quantised.add(x)
        self._node("Abs", [x], f"{x}.abs")
        self._node("ReduceMax", [f"{x}.abs", "axis_last"], f"{x}.max", keepdims=1)
        self._node("Max", [f"{x}.max", "tiny"], f"{x}.range")
        self._node("Div", [f"{x}.range", "full_scale"], f"{x}.scale")
        self._node("Div", ["full_scale", f"{x}.range"], f"{x}.inverse")
        self._node("Mul", [x, f"{x}.inverse"], f"{x}.scaled")
        self._node("Add", [f"{x}.scaled", "centre_and_half"], f"{x}.shifted")
        self._node("Cast", [f"{x}.shifted"], f"{x}.u8", to=TensorProto.UINT8)

    def _skip_norm(self, x: str, skip: str, *, bias: str, norm: str, out: str) -> str:
        inputs = [
            x, skip, self._vector(f"{norm}.w"), self._vector(f"{norm}.b"), self._vector(bias)
        ]  # fmt: skip
        return self._node(
            "SkipLayerNormalization", inputs, out, fused=True, epsilon=self._shape.eps
        )

    def _mean(self, hidden: str) -> str:
        self._constant("axis_1", np.array([1], np.int64))
        self._node("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
        self._node("Unsqueeze", ["mask", "axis_1"], "mask_row")
        self._node("MatMul", ["mask_row", hidden], "sum_row")
        self._node("Squeeze", ["sum_row", "axis_1"], "sum")
        self._node("ReduceSum", ["mask", "axis_1"], "count", keepdims=1)
        return self._node("Div", ["sum", "count"], "sentence_embedding")

    def _first(self, hidden: str, out: str) -> str:
        self._constant("first", np.array(0, np.int64))
        return self._node("Gather", [hidden, "first"], out, axis=1)

    def _relevance(self, hidden: str) -> str:
        x = self._first(hidden, "first_token")
        for name, out in (("head.d", "head_dense"), ("head.o", "logits")):
            self._constant(f"{name}.w", as_float(self._weights.matrix(f"{name}.w")).T)
            self._node("MatMul", [x, f"{name}.w"], f"{name}.y")
            x = self._node("Add", [f"{name}.y", self._vector(f"{name}.b")], out)
            if name == "head.d":
                x = self._node("Tanh", [x], "head_active")
        return x

    def _stacked(self, names: Sequence[str]) -> FloatArray:
        matrices = [as_float(self._weights.matrix(name)) for name in names]
        return matrices[0] if len(matrices) == 1 else np.concatenate(matrices)

    def _vector(self, name: str) -> str:
        return self._constant(name, self._weights.vector(name))

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        self._constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def _packed_constant(self, name: str, matrix: Q4Matrix) -> None:
        """Add 4-bit values as ONNX int4: two's complement is the nibble with its top bit flipped."""
        tensor = onnx.TensorProto()
        tensor.name = name
        tensor.data_type = TensorProto.INT4
        tensor.dims.extend(matrix.shape)
        tensor.raw_data = (matrix.packed ^ np.uint8(0x88)).tobytes()
        self._constants.append(tensor)

    def _node(
        self, op: str, inputs: Sequence[str], out: str, *, fused: bool = False, **attributes: Any
    ) -> str:
        domain = _FUSED if fused else ""
        self._nodes.append(helper.make_node(op, inputs, [out], domain=domain, **attributes))
        return out

    def _model(self, outputs: Sequence[tuple[str, list[Any]]]) -> Any:
        dims = ["batch", "sequence"]
        graph = helper.make_graph(
            self._nodes,
            "encoder",
            [helper.make_tensor_value_info(name, TensorProto.INT64, dims) for name in self._inputs],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in outputs],
            self._constants,
        )
        return helper.make_model(
            graph,
            producer_name="ondol",
            ir_version=_IR_VERSION,
            opset_imports=[helper.make_opsetid("", _OPSET), helper.make_opsetid(_FUSED, 1)],
        )
