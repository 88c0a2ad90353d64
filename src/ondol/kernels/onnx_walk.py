"""Walks an ONNX graph from names that exporters keep to the values and constants around them.

Knows operators and their quantised spellings, no model. Values are float32: integers become
(value - zero point) x scale, along the last axis where scales are per channel. A step that does
not lead where it should is ``UnknownGraph``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ondol.kernels.bert import FloatArray

_LONGEST_CHAIN = 16
"""Steps that a walk takes at most, so that a graph with a cycle ends it."""


class UnknownGraph(Exception):
    """The graph is not built as expected; the message says where."""


class GraphWalk:
    """A graph with its tensors by name and its nodes by what they make and use."""

    def __init__(self, graph: Any) -> None:
        self.initialisers: dict[str, Any] = {t.name: t for t in graph.initializer}
        self._maker: dict[str, Any] = {}
        self._users: dict[str, list[Any]] = defaultdict(list)
        self._nodes = list(graph.node)
        for node in self._nodes:
            for name in node.output:
                self._maker[name] = node
            for name in node.input:
                self._users[name].append(node)

    def count(self, op: str, **attributes: Any) -> int:
        """Return how many nodes are ``op``; an attribute that a node lacks counts as equal."""
        return sum(
            node.op_type == op
            and all(_attribute(node, key, value) == value for key, value in attributes.items())
            for node in self._nodes
        )

    def floats(self, name: str) -> FloatArray:
        """Return a stored tensor as float32."""
        return np.asarray(self._constant(name), np.float32)

    def table(self, name: str) -> FloatArray:
        """Return an embedding table, dequantised as the graph does before or after its lookup."""
        user = self._user(name, "Gather", "DequantizeLinear")
        if user.op_type == "Gather" and not _is_float(self.initialisers[name]):
            user = self._user(user.output[0], "DequantizeLinear")
        if user.op_type == "Gather":
            return self.floats(name)
        return self._dequantised(self._constant(name), user.input[1:], axis=_axis(user))

    def linear(self, bias: str) -> FloatArray:
        """Return the weights ``(out, in)`` of the product that ``bias`` is added to."""
        node = self.sum_with(bias)
        if node.op_type == "Gemm":
            weights = self.floats(node.input[1])
            return weights if _attribute(node, "transB", 0) else weights.T
        product = self._product(next(name for name in node.input if name != bias))
        if product.op_type == "MatMul":
            return np.asarray(self._floats_of(product.input[1])).T
        scale = self._weight_scale(product)
        values = self._constant(product.input[1])
        zero = [product.input[3]] if len(product.input) > 3 and product.input[3] else []
        return self._dequantised(values, [scale, *zero], axis=1).T

    def sum_with(self, bias: str) -> Any:
        """Return the node that adds ``bias`` to a product."""
        return self._user(bias, "Add", "Gemm")

    def activated(self, bias: str, op: str) -> bool:
        """Whether the sum with ``bias`` goes straight into ``op``."""
        return any(user.op_type == op for user in self._users[self.sum_with(bias).output[0]])

    def heads(self, query: str, *, hidden: int) -> int:
        """Return how many heads the reshape of ``query`` cuts ``hidden`` columns into."""
        target = self._user(query, "Reshape").input[1]
        sizes = self._last_sizes(target)
        heads, width = sizes if len(sizes) == 2 else (-1, -1)
        heads = hidden // width if heads < 1 <= width else heads
        width = hidden // heads if width < 1 <= heads else width
        if heads < 1 or heads * width != hidden:
            raise UnknownGraph(f"the reshape of {query} does not cut {hidden} columns into heads")
        return heads

    def epsilon(self, scale: str) -> float:
        """Return what the normalisation that multiplies by ``scale`` adds to the variance."""
        node = self._user(scale, "Mul", "LayerNormalization")
        if node.op_type == "LayerNormalization":
            return float(_attribute(node, "epsilon", 1e-5))
        root = self._back(
            next(name for name in node.input if name != scale),
            stop=lambda made: made.op_type == "Sqrt",
            through={"Div": 1},
        )
        added = self._maker.get(root.input[0])
        if added is None or added.op_type != "Add":
            raise UnknownGraph(f"the normalisation of {scale} adds no epsilon")
        for name in added.input:
            if self._is_constant(name):
                return float(self.floats(name))
        raise UnknownGraph(f"the normalisation of {scale} adds no constant epsilon")

    def _product(self, name: str) -> Any:
        return self._back(
            name,
            stop=lambda node: node.op_type in {"MatMul", "MatMulInteger"},
            through={"Mul": 0, "Cast": 0},
        )

    def _back(self, name: str, *, stop: Callable[[Any], bool], through: dict[str, int]) -> Any:
        """Follow ``name`` backwards through the given input of these operators until ``stop``."""
        for _ in range(_LONGEST_CHAIN):
            node = self._maker.get(name)
            if node is None:
                break
            if stop(node):
                return node
            if node.op_type not in through:
                break
            name = node.input[through[node.op_type]]
        raise UnknownGraph(f"nothing usable makes {name}")

    def _weight_scale(self, product: Any) -> str:
        """Return the name of the weights' scale: the stored factor of the product's rescaling."""
        name = product.output[0]
        for _ in range(_LONGEST_CHAIN):
            user = self._user(name, "Cast", "Mul")
            name = user.output[0]
            if user.op_type == "Mul":
                factors = self._factors(user)
                if len(factors) != 1:
                    raise UnknownGraph(f"{user.output[0]} has {len(factors)} stored scales, not 1")
                return factors[0]
        raise UnknownGraph(f"{product.output[0]} is never scaled")

    def _factors(self, rescaling: Any) -> list[str]:
        factors: list[str] = []
        for name in rescaling.input:
            maker = self._maker.get(name)
            inner = maker.input if maker is not None and maker.op_type == "Mul" else [name]
            factors += [factor for factor in inner if self._is_constant(factor)]
        return factors

    def _dequantised(self, values: NDArray[Any], names: list[str], *, axis: int) -> FloatArray:
        scale = _along(self.floats(names[0]), axis, values.ndim)
        zero: NDArray[Any] = np.zeros((), np.int32)
        if len(names) > 1 and names[1]:
            zero = _along(np.asarray(self._constant(names[1]), np.int32), axis, values.ndim)
        return np.asarray((values.astype(np.int32) - zero).astype(np.float32) * scale)

    def _floats_of(self, name: str) -> FloatArray:
        """Return weights that are stored, or stored in integers and dequantised on the way."""
        maker = self._maker.get(name)
        if maker is None or maker.op_type == "Constant":
            return self.floats(name)
        if maker.op_type == "DequantizeLinear":
            values = self._constant(maker.input[0])
            return self._dequantised(values, maker.input[1:], axis=_axis(maker))
        if maker.op_type == "Transpose":
            return self._floats_of(maker.input[0]).T
        raise UnknownGraph(f"{name} is computed by {maker.op_type}, not stored")

    def _last_sizes(self, name: str) -> list[int]:
        """Return the last two entries of a reshape's target, -1 where it is computed."""
        maker = self._maker.get(name)
        if maker is not None and maker.op_type == "Concat":
            parts = maker.input[-2:]
            return [
                int(self._constant(part).reshape(-1)[0]) if self._is_constant(part) else -1
                for part in parts
            ]
        return [int(size) for size in self._constant(name).reshape(-1)[-2:]]

    def _user(self, name: str, *ops: str) -> Any:
        for node in self._users[name]:
            if node.op_type in ops:
                return node
        raise UnknownGraph(f"no {' or '.join(ops)} uses {name}")

    def _is_constant(self, name: str) -> bool:
        maker = self._maker.get(name)
        return name in self.initialisers or (maker is not None and maker.op_type == "Constant")

    def _constant(self, name: str) -> NDArray[Any]:
        tensor = self.initialisers.get(name)
        if tensor is None:
            maker = self._maker.get(name)
            if maker is None or maker.op_type != "Constant":
                raise UnknownGraph(f"{name} is not stored in the file")
            tensor = _attribute(maker, "value", None)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            raise UnknownGraph(f"{name} is stored outside the file")
        return np.asarray(numpy_helper.to_array(tensor))


def _attribute(node: Any, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default


def _along(values: NDArray[Any], axis: int, dimensions: int) -> NDArray[Any]:
    """Return one value, or one per entry of ``axis``, in a shape that broadcasts."""
    if values.size == 1:
        return values.reshape(())
    sizes = [1] * dimensions
    sizes[axis] = -1
    return values.reshape(sizes)


def _axis(node: Any) -> int:
    return int(_attribute(node, "axis", 1))


def _is_float(tensor: Any) -> bool:
    return tensor.data_type in {TensorProto.FLOAT, TensorProto.FLOAT16}
