"""Builds the OpenVINO graph of a BERT encoder straight from its weights: no ONNX, no NNCF.

Inputs ``input_ids``, ``attention_mask`` and, for a reranker with several segments,
``token_type_ids``: int32 ``(batch, sequence)``, padded on the right. One output, float32: pooled
embeddings ``(b, h)``, not normalised, or logits ``(b, 1)``. Attention is written out with the
scale folded into the queries, which was as fast as the fused operator (docs/adr/0022). Source:
https://docs.openvino.ai/2025/documentation/openvino-ir-format/operation-sets/available-opsets/opset15.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ondol.kernels.bert import BLOCK, BertWeights, FloatArray, Q4Matrix, as_float
from ondol.kernels.calibration.static_int8 import LEVELS, StaticInt8
from ondol.kernels.openvino_library import openvino
from ondol.kernels.rounding import quantise_channels

Precision = Literal["fp32", "int8", "int8-weights"]

_CENTRE = 128
"""The step that stands for the middle of a range; bfloat16 is finest around 0."""

_MASKED = np.float32(-1e4)
"""Added to the score of a padding token; e to this power is 0 in float32 and bfloat16."""


def build_openvino(
    weights: BertWeights,
    *,
    precision: Precision,
    pooling: Literal["mean", "cls"] = "mean",
    static: StaticInt8 | None = None,
    levels: int = 127,
) -> Any:
    """Return the encoder as an ``openvino.Model``.

    ``int8`` multiplies what ``static`` holds; ``int8-weights`` rounds weights to ±``levels`` and
    keeps activations as they are. Raises ``ValueError`` for ``int8`` without ``static``.
    """
    if (precision == "int8") != (static is not None):
        raise ValueError("int8 needs calibrated weights, and nothing else takes them")
    graph = OpenVinoGraph(weights, precision=precision, static=static, levels=levels)
    return graph.build(pooling)


@dataclass(frozen=True, slots=True)
class _Affine:
    """``scale x + shift``, per channel."""

    scale: FloatArray | np.float32
    shift: FloatArray | np.float32


@dataclass(frozen=True, slots=True)
class _Signal:
    """A value, and the same as steps around 0 where an 8-bit multiplication reads it."""

    value: Any
    centred: Any


_SAME = _Affine(np.float32(1), np.float32(0))


class OpenVinoGraph:
    """Adds a part per method, each returning its output node."""

    def __init__(
        self,
        weights: BertWeights,
        *,
        precision: Precision,
        static: StaticInt8 | None,
        levels: int,
    ) -> None:
        ov = openvino()
        self._ov = ov
        self._ops = ov.opset15
        self._weights = weights
        self._shape = weights.shape
        self._precision = precision
        self._static = static
        self._levels = levels
        self._mask: Any = None
        self._steps_of: dict[str, Any] = {}
        self._parameters: list[Any] = []

    def build(self, pooling: Literal["mean", "cls"]) -> Any:
        """Return the whole model."""
        ops = self._ops
        ids, mask = self._input("input_ids"), self._input("attention_mask")
        self._mask = ops.convert(mask, "f32")
        hidden = self._embeddings(ids)
        absent = ops.subtract(self._const(np.float32(1)), self._mask)
        penalty = ops.multiply(ops.unsqueeze(absent, self._axes(1, 2)), self._const(_MASKED))
        for index in range(self._shape.layers):
            hidden = self._layer(f"l{index}.", hidden, penalty)
        if self._shape.classifier:
            out = self._relevance(self._first(hidden.value))
        else:
            out = self._mean(hidden.value) if pooling == "mean" else self._first(hidden.value)
        return self._ov.Model([ops.result(out)], self._parameters, "encoder")

    def _input(self, name: str) -> Any:
        node = self._ops.parameter(self._ov.PartialShape([-1, -1]), self._ov.Type.i32, name=name)
        node.output(0).set_names({name})
        self._parameters.append(node)
        return node

    def _embeddings(self, ids: Any) -> _Signal:
        ops = self._ops
        embedded = self._words(ids)
        positions = as_float(self._weights.matrix("emb.pos"))
        segments = as_float(self._weights.matrix("emb.type"))
        if self._shape.classifier and self._shape.types > 1:
            types = self._input("token_type_ids")
            embedded = ops.add(embedded, ops.gather(self._const(segments), types, self._axis(0)))
        else:
            positions = positions + segments[0]
        length = ops.gather(ops.shape_of(ids, "i64"), self._axes(1), self._axis(0))
        zero, one = self._axes(0), self._axes(1)
        these = ops.slice(self._const(positions), zero, length, one, zero)
        return self._norm(ops.add(embedded, these), "emb.ln", into="l0.qkv")

    def _words(self, ids: Any) -> Any:
        """Look words up in the table as it is stored, so that the table is never expanded."""
        ops = self._ops
        table = self._weights.matrix("emb.word")
        if isinstance(table, Q4Matrix):
            return self._packed_words(table, ids)
        if self._precision == "fp32":
            return ops.gather(self._const(table), ids, self._axis(0))
        quantised = quantise_channels(table)
        rows = ops.gather(self._const(quantised.values.T), ids, self._axis(0))
        scales = ops.gather(self._const(quantised.scales[:, None]), ids, self._axis(0))
        return ops.multiply(ops.convert(rows, "f32"), scales)

    def _packed_words(self, table: Q4Matrix, ids: Any) -> Any:
        """Gather bytes and split them after: value = (nibble - 8) x the scale of its block."""
        ops, columns = self._ops, table.shape[1]
        pairs = ops.convert(ops.gather(self._const(table.packed), ids, self._axis(0)), "f32")
        high = ops.floor(ops.multiply(pairs, self._const(np.float32(1 / 16))))
        low = ops.subtract(pairs, ops.multiply(high, self._const(np.float32(16))))
        both = ops.concat([ops.unsqueeze(n, self._axes(3)) for n in (low, high)], 3)
        blocks = ops.reshape(both, self._axes(0, 0, columns // BLOCK, BLOCK), True)
        centred = ops.subtract(blocks, self._const(np.float32(8)))
        scales = ops.gather(self._const(table.scales), ids, self._axis(0))
        values = ops.multiply(centred, ops.unsqueeze(scales, self._axes(3)))
        return ops.reshape(values, self._axes(0, 0, columns), True)

    def _layer(self, p: str, hidden: _Signal, penalty: Any) -> _Signal:
        ops = self._ops
        attended = self._attention(p, hidden, penalty)
        projected = self._linear(attended, f"{p}ao", of=f"{p}ao")
        middle = self._norm(ops.add(projected, hidden.value), f"{p}aln", into=f"{p}fi")
        rows = self._static.ranges[f"{p}fo"].source if self._static else None
        wide = ops.gelu(self._linear(middle, f"{p}fi", of=f"{p}fi", rows=rows), "erf")
        narrow = self._linear(self._rescaled(wide, f"{p}fo"), f"{p}fo", of=f"{p}fo")
        following = f"l{int(p[1:-1]) + 1}.qkv"
        return self._norm(ops.add(narrow, middle.value), f"{p}oln", into=following)

    def _attention(self, p: str, hidden: _Signal, penalty: Any) -> _Signal:
        ops, heads = self._ops, self._shape.heads
        width = self._shape.hidden // heads

        def part(name: str, change: _Affine) -> Any:
            flat = self._linear(hidden, f"{p}{name}", of=f"{p}qkv", change=change)
            split = ops.reshape(flat, self._axes(0, 0, heads, width), True)
            return ops.transpose(split, self._axes(0, 2, 1, 3))

        queries = part("q", _Affine(np.float32(width**-0.5), np.float32(0)))
        # Attention weights sum to 1, so what scales and shifts the values does so to the result.
        values = part("v", self._affine(f"{p}ao") or _SAME)
        scores = ops.add(ops.matmul(queries, part("k", _SAME), False, True), penalty)
        mixed = ops.matmul(ops.softmax(scores, -1), values, False, False)
        merged = ops.transpose(mixed, self._axes(0, 2, 1, 3))
        context = ops.reshape(merged, self._axes(0, 0, self._shape.hidden), True)
        return _Signal(context, context)

    def _linear(
        self,
        x: _Signal,
        name: str,
        *,
        of: str,
        change: _Affine = _SAME,
        rows: NDArray[np.int64] | None = None,
    ) -> Any:
        """Multiply by the transposed weights ``name``, add the bias, and ``change`` the result.

        ``of`` names the input, which several multiplications may share. ``rows`` are the outputs
        wanted, where some are wanted more than once.
        """
        if self._static is not None:
            linear = self._static.linears[name]
            node = self._scaled(linear.values, linear.scales * change.scale, rows)
            bias = linear.bias * change.scale + change.shift
            if of not in self._steps_of:
                self._steps_of[of] = self._steps(x.centred)
            return self._product(self._steps_of[of], node, bias if rows is None else bias[rows])
        matrix = as_float(self._weights.matrix(f"{name}.w")) * np.reshape(change.scale, (-1, 1))
        bias = self._weights.vector(f"{name}.b") * change.scale + change.shift
        if self._precision == "fp32":
            return self._product(x.value, self._const(matrix), bias)
        rounded = quantise_channels(matrix, levels=self._levels)
        return self._product(x.value, self._scaled(rounded.values.T, rounded.scales), bias)

    def _scaled(
        self,
        values: NDArray[np.int8],
        scales: FloatArray,
        rows: NDArray[np.int64] | None = None,
    ) -> Any:
        """Return 8-bit weights ``(out, in)`` as a node that stands for their values."""
        if rows is not None:
            values, scales = values[rows], scales[rows]
        whole = self._ops.convert(self._const(values), "f32")
        return self._ops.multiply(whole, self._const(np.reshape(scales, (-1, 1))))

    def _affine(self, of: str) -> _Affine | None:
        """Return what turns the input ``of`` into steps around 0, or ``None`` where none are made."""
        fitted = self._static.ranges.get(of) if self._static else None
        if fitted is None:
            return None
        inverse: FloatArray = np.reciprocal(fitted.step)
        return _Affine(inverse, -fitted.low * inverse - np.float32(_CENTRE))

    def _rescaled(self, x: Any, of: str) -> _Signal:
        affine = self._affine(of)
        return _Signal(x, x if affine is None else self._apply(x, affine))

    def _apply(self, x: Any, affine: _Affine) -> Any:
        scaled = self._ops.multiply(x, self._const(np.reshape(affine.scale, (1, 1, -1))))
        return self._ops.add(scaled, self._const(np.reshape(affine.shift, (1, 1, -1))))

    def _steps(self, x: Any) -> Any:
        """Round to whole steps from 0 to 255; the range is one for all channels by then."""
        low, high = np.float32(-_CENTRE), np.float32(LEVELS - _CENTRE)
        limits = [self._const(value) for value in (low, high, np.float32(0), np.float32(LEVELS))]
        return self._ops.fake_quantize(x, *limits, LEVELS + 1)

    def _product(self, x: Any, matrix: Any, bias: FloatArray) -> Any:
        product = self._ops.matmul(x, matrix, False, True)
        return self._ops.add(product, self._const(bias.reshape((1, 1, -1))))

    def _norm(self, x: Any, name: str, *, into: str) -> _Signal:
        """Normalise; ``into`` names the multiplication that follows, which wants steps."""
        ops = self._ops
        normal = ops.mvn(x, self._axes(-1), True, float(self._shape.eps), "INSIDE_SQRT")
        weight, bias = self._weights.vector(f"{name}.w"), self._weights.vector(f"{name}.b")
        value = self._apply(normal, _Affine(weight, bias))
        affine = self._affine(into)
        if affine is None:
            return _Signal(value, value)
        both = _Affine(weight * affine.scale, bias * affine.scale + affine.shift)
        return _Signal(value, self._apply(normal, both))

    def _mean(self, hidden: Any) -> Any:
        ops = self._ops
        kept = ops.multiply(hidden, ops.unsqueeze(self._mask, self._axes(2)))
        total = ops.reduce_sum(kept, self._axes(1), False)
        return ops.divide(total, ops.reduce_sum(self._mask, self._axes(1), True))

    def _first(self, hidden: Any) -> Any:
        return self._ops.gather(hidden, self._axis(0), self._axis(1))

    def _relevance(self, x: Any) -> Any:
        for name in ("head.d", "head.o"):
            matrix = self._const(as_float(self._weights.matrix(f"{name}.w")))
            bias = self._const(self._weights.vector(f"{name}.b")[None])
            x = self._ops.add(self._ops.matmul(x, matrix, False, True), bias)
            x = self._ops.tanh(x) if name == "head.d" else x
        return x

    def _const(self, value: NDArray[Any] | np.generic) -> Any:
        return self._ops.constant(np.asarray(value, order="C"))

    def _axis(self, value: int) -> Any:
        return self._const(np.int64(value))

    def _axes(self, *values: int) -> Any:
        return self._const(np.array(values, np.int64))
