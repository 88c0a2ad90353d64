"""Reads a BERT encoder's weights out of an ONNX file as transformers and optimum export it.

Understands plain, 8-bit dynamic (``MatMulInteger``) and dequantised (``DequantizeLinear``) graphs
that kept the names of their biases: each matrix is found by walking from its bias back to its
multiplication, so renamed initialisers do not matter. Values come back as float32, exactly as the
graph's integers, scales and zero points define them. Any other graph is a ``KernelError``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from ondol.kernels.bert import BertShape, BertWeights, FloatArray, expected_shape
from ondol.kernels.kernel_error import KernelError
from ondol.kernels.onnx_walk import GraphWalk, UnknownGraph

_STEMS = {
    "emb.ln": "embeddings.LayerNorm",
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
    "head.d": "pooler.dense",
    "head.o": "classifier",
}
_TABLES = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
}
_WORDS = re.compile(r"(.*)embeddings\.word_embeddings\.weight(?:_quantized)?")
_LAYER = "encoder.layer."


def read_onnx_weights(path: Path) -> BertWeights:
    """Open an ONNX encoder or cross-encoder; tensors are expanded one at a time when asked for.

    The sizes are those of the graph's own tensors; the heads come from its reshapes, the epsilon
    from its first normalisation. A pooler with a one-logit classifier becomes ``head.d`` and
    ``head.o``; a pooler without one is left out.

    Raises ``KernelError`` for a damaged file and for a graph that is no BERT by its names, with
    exact GELU and positions counted from 0.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise KernelError(
            f"{path.name} is no ONNX file: {error}",
            hint="delete the file and pull the model again",
        ) from error
    try:
        reader = _Reader(path=path, walk=GraphWalk(model.graph))
        shape = reader.shape()
    except (UnknownGraph, ValueError, KeyError, IndexError) as error:
        raise _unsupported(path, str(error)) from error
    except (TypeError, AttributeError) as error:
        raise _unsupported(path, f"a node lacks what it needs: {error}") from error
    bound = _Bound(reader=reader, shape=shape)
    return BertWeights(shape=shape, matrix=bound.tensor, vector=bound.tensor)


@dataclass(frozen=True, slots=True)
class _Bound:
    """Hands out tensors by canonical name, checked against the shape."""

    reader: _Reader
    shape: BertShape

    def tensor(self, name: str) -> FloatArray:
        try:
            values = self.reader.tensor(name)
        except (UnknownGraph, ValueError) as error:
            raise _unsupported(self.reader.path, f"{name}: {error}") from error
        expected = expected_shape(name, self.shape)
        if values.shape != expected:
            raise _unsupported(
                self.reader.path,
                f"{name} has shape {list(values.shape)}, the graph's other tensors "
                f"make it {list(expected)}",
            )
        return np.ascontiguousarray(values, np.float32)


class _Reader:
    """Maps canonical names to places in the graph; raises ``UnknownGraph`` where there is none."""

    def __init__(self, *, path: Path, walk: GraphWalk) -> None:
        self.path = path
        self._walk = walk
        match = next((m for m in map(_WORDS.fullmatch, walk.initialisers) if m), None)
        if match is None:
            raise UnknownGraph("it has no word embeddings under BERT's name")
        self._prefix = match[1]

    def tensor(self, name: str) -> FloatArray:
        if name in _TABLES:
            return self._table(name)
        stem, _, part = name.rpartition(".")
        native = self._native(stem)
        if stem.endswith("ln"):
            return self._walk.floats(f"{native}.{'weight' if part == 'w' else 'bias'}")
        if part == "b":
            return self._walk.floats(f"{native}.bias")
        return self._walk.linear(f"{native}.bias")

    def shape(self) -> BertShape:
        self._check_architecture()
        vocab, hidden = self._table_size("emb.word")
        layers = self._layers()
        query = self._walk.sum_with(f"{self._native('l0.q')}.bias").output[0]
        return BertShape(
            hidden=hidden,
            layers=layers,
            heads=self._walk.heads(query, hidden=hidden),
            ffn=int(self._walk.floats(f"{self._native('l0.fi')}.bias").shape[0]),
            vocab=vocab,
            positions=self._table_size("emb.pos")[0],
            types=self._table_size("emb.type")[0],
            eps=self._walk.epsilon(f"{self._native('emb.ln')}.weight"),
            classifier=self._classifier(),
        )

    def _check_architecture(self) -> None:
        if self._walk.count("CumSum"):
            raise UnknownGraph("it counts positions as RoBERTa does, after the padding id")
        exact = self._walk.count("Erf") + self._walk.count("Gelu", approximate=b"none")
        if exact < self._layers():
            raise UnknownGraph("its activation is not the exact GELU in every layer")

    def _layers(self) -> int:
        lead = self._prefix + _LAYER
        layers = 0
        while f"{lead}{layers}.{_STEMS['q']}.bias" in self._walk.initialisers:
            layers += 1
        if not layers:
            raise UnknownGraph("it has no encoder layers under BERT's names")
        return layers

    def _classifier(self) -> bool:
        bias = f"{self._native('head.o')}.bias"
        if bias not in self._walk.initialisers:
            return False
        labels = self._walk.floats(bias).shape
        if labels != (1,):
            raise UnknownGraph(f"its classifier has shape {list(labels)}; a reranker has one logit")
        if not self._walk.activated(f"{self._native('head.d')}.bias", "Tanh"):
            raise UnknownGraph("its classifier does not follow a pooler with tanh")
        return True

    def _native(self, stem: str) -> str:
        if stem == "head.o":
            return _STEMS[stem]
        if stem in _STEMS:
            return self._prefix + _STEMS[stem]
        layer, _, part = stem.partition(".")
        return f"{self._prefix}{_LAYER}{layer[1:]}.{_STEMS[part]}"

    def _table(self, name: str) -> FloatArray:
        return self._walk.table(self._table_name(name))

    def _table_size(self, name: str) -> tuple[int, int]:
        rows, columns = self._walk.initialisers[self._table_name(name)].dims
        return int(rows), int(columns)

    def _table_name(self, name: str) -> str:
        native = self._prefix + _TABLES[name]
        stored = f"{native}_quantized"
        if stored in self._walk.initialisers:
            return stored
        if native in self._walk.initialisers:
            return native
        raise UnknownGraph(f"the table {native} is missing")


def _unsupported(path: Path, reason: str) -> KernelError:
    return KernelError(
        f"the weights of {path.name} cannot be read out of its graph: {reason}",
        hint="run the file as it is (onnx:int8), or use a model with safetensors weights",
    )
