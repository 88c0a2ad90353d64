"""What goes into every multiplication of an encoder: extremes and second moments, on given texts.

Runs the float32 encoder in NumPy, text by text through one layer at a time, so that only one
layer's activations lie in memory. Used where weights are rounded against what they will multiply.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ondol.kernels.bert import BertWeights, FloatArray, Q4Matrix, as_float

_SQRT_HALF = np.float32(0.7071067811865476)


class Tokens(Protocol):
    """One tokenised text: token ids and segment ids of equal length, special tokens included."""

    @property
    def ids(self) -> Sequence[int]: ...
    @property
    def type_ids(self) -> Sequence[int]: ...


Observe = Callable[[str, FloatArray], None]
"""Called with the name (``lN.qkv``, ``lN.ao``, ``lN.fi``, ``lN.fo``) and input of a multiplication."""


@dataclass(frozen=True, slots=True)
class InputStatistics:
    """Of one multiplication's input over all tokens.

    ``largest`` magnitude a channel ``(k,)``; ``moments``, the mean of x xᵀ within each of some equal
    runs of channels, float64 ``(groups, k / groups, k / groups)``.
    """

    largest: FloatArray
    moments: np.ndarray[tuple[int, int, int], np.dtype[np.float64]]


def input_statistics(x: FloatArray, *, groups: int = 1) -> InputStatistics:
    """Return the statistics of inputs ``(tokens, k)``."""
    runs = np.split(x, groups, axis=1)
    moments = np.stack([(run.T @ run).astype(np.float64) / len(x) for run in runs])
    return InputStatistics(largest=np.abs(x).max(axis=0), moments=moments)


def hidden_states(
    weights: BertWeights, items: Sequence[Tokens], *, observe: Observe | None = None
) -> FloatArray:
    """Return the last layer's float32 states, the items' tokens one after the other.

    ``observe`` sees the input ``(tokens, k)`` of every multiplication. Raises ``ValueError`` when
    there is no item.
    """
    if not items:
        raise ValueError("there are no texts to run")
    notify = observe or _ignore
    shape = weights.shape
    ends = np.cumsum([len(item.ids) for item in items])
    spans = list(zip(ends - [len(item.ids) for item in items], ends, strict=True))
    x = _norm(weights, "emb.ln", _embedded(weights, items))
    for index in range(shape.layers):
        p = f"l{index}."
        notify(f"{p}qkv", x)
        q, k, v = (_linear(weights, p + part, x) for part in "qkv")
        context = np.empty_like(x)
        for start, end in spans:
            rows = slice(start, end)
            context[rows] = _attention(q[rows], k[rows], v[rows], heads=shape.heads)
        notify(f"{p}ao", context)
        x = _norm(weights, f"{p}aln", _linear(weights, f"{p}ao", context) + x)
        notify(f"{p}fi", x)
        wide = _gelu(_linear(weights, f"{p}fi", x))
        notify(f"{p}fo", wide)
        x = _norm(weights, f"{p}oln", _linear(weights, f"{p}fo", wide) + x)
    return x


def _ignore(name: str, x: FloatArray) -> None:
    """Observe nothing."""


def _embedded(weights: BertWeights, items: Sequence[Tokens]) -> FloatArray:
    ids = np.concatenate([np.asarray(item.ids) for item in items])
    types = np.concatenate([np.asarray(item.type_ids) for item in items])
    places = np.concatenate([np.arange(len(item.ids)) for item in items])
    words: FloatArray = (
        _rows(weights, ids)
        + as_float(weights.matrix("emb.pos"))[places]
        + as_float(weights.matrix("emb.type"))[types]
    )
    return words


def _rows(weights: BertWeights, ids: np.ndarray[tuple[int], np.dtype[np.int64]]) -> FloatArray:
    """Return the word vectors of ``ids`` without expanding the whole table."""
    table = weights.matrix("emb.word")
    if isinstance(table, Q4Matrix):
        return Q4Matrix(packed=table.packed[ids], scales=table.scales[ids]).dequantised()
    rows: FloatArray = table[ids]
    return rows


def _linear(weights: BertWeights, name: str, x: FloatArray) -> FloatArray:
    y: FloatArray = x @ as_float(weights.matrix(f"{name}.w")).T + weights.vector(f"{name}.b")
    return y


def _norm(weights: BertWeights, name: str, x: FloatArray) -> FloatArray:
    d = x - x.mean(axis=1, keepdims=True)
    deviation = np.sqrt((d * d).mean(axis=1, keepdims=True) + np.float32(weights.shape.eps))
    y: FloatArray = d / deviation * weights.vector(f"{name}.w") + weights.vector(f"{name}.b")
    return y


def _attention(q: FloatArray, k: FloatArray, v: FloatArray, *, heads: int) -> FloatArray:
    """One text, ``(tokens, hidden)`` each, all heads at once."""
    tokens, hidden = q.shape
    q, k, v = (part.reshape(tokens, heads, -1).transpose(1, 0, 2) for part in (q, k, v))
    scores = q @ k.transpose(0, 2, 1) / np.float32((hidden // heads) ** 0.5)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = (shares / shares.sum(axis=-1, keepdims=True)) @ v
    y: FloatArray = mixed.transpose(1, 0, 2).reshape(tokens, hidden)
    return y


def _gelu(x: FloatArray) -> FloatArray:
    """Exact GELU; erf by Abramowitz & Stegun 7.1.26 (absolute error below 2e-7)."""
    z = np.abs(x) * _SQRT_HALF
    t = 1 / (1 + np.float32(0.3275911) * z)
    p = ((1.061405429 * t - 1.453152027) * t + 1.421413741) * t
    erf = 1 - ((p - 0.284496736) * t + 0.254829592) * t * np.exp(-z * z)
    y: FloatArray = (0.5 * x * (1 + np.sign(x) * erf)).astype(np.float32)
    return y
