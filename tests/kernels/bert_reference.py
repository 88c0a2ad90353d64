"""An independent BERT in NumPy: reads E5S1 by the letter of the layout and runs it in float32.

Shares no code with ``ondol.models``, so that agreement between the two means something.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class ReferenceBert:
    """Sizes and a bag of float32 tensors under the E5S1 names."""

    hidden: int
    layers: int
    heads: int
    eps: float
    tensors: dict[str, Array]

    def hidden_states(self, ids: Sequence[int]) -> Array:
        """Return the last layer's states ``(tokens, hidden)`` of one unpadded text."""
        t = self.tensors
        x = t["emb.word"][list(ids)] + t["emb.pos"][: len(ids)] + t["emb.type"][0]
        x = self._norm(x, "emb.ln")
        for layer in range(self.layers):
            p = f"l{layer}."
            x = self._norm(x + self._dense(self._attend(x, p), p + "ao"), p + "aln")
            wide = _gelu(self._dense(x, p + "fi"))
            x = self._norm(x + self._dense(wide, p + "fo"), p + "oln")
        return x

    def sentence(self, ids: Sequence[int]) -> Array:
        """Return the mean of the states ``(hidden,)``, not normalised."""
        return np.asarray(self.hidden_states(ids).mean(axis=0), dtype=np.float32)

    def _attend(self, x: Array, p: str) -> Array:
        width = self.hidden // self.heads
        q, k, v = (
            self._dense(x, p + name).reshape(len(x), self.heads, width).transpose(1, 0, 2)
            for name in "qkv"
        )
        scores = q @ k.transpose(0, 2, 1) / np.float32(math.sqrt(width))
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return np.asarray((weights @ v).transpose(1, 0, 2).reshape(len(x), self.hidden))

    def _dense(self, x: Array, name: str) -> Array:
        return np.asarray(x @ self.tensors[name + ".w"].T + self.tensors[name + ".b"])

    def _norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = (centred**2).mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(variance + np.float32(self.eps))
        return np.asarray(scaled * self.tensors[name + ".w"] + self.tensors[name + ".b"])


_erf = np.vectorize(math.erf, otypes=[np.float32])


def _gelu(x: Array) -> Array:
    return np.asarray(x * np.float32(0.5) * (1 + _erf(x / math.sqrt(2))), dtype=np.float32)


def read_reference(path: Path) -> ReferenceBert:
    """Read an E5S1 file whole, every 4-bit block expanded element by element position."""
    data = path.read_bytes()
    at = 8
    hidden, layers, heads, ffn, vocab, positions, types = struct.unpack_from("<7i", data, at)
    eps, _ = struct.unpack_from("<fi", data, at + 28)
    at += 36
    pieces = struct.unpack_from("<i", data, at)[0]
    blob = struct.unpack_from("<Q", data, at + 20)[0]
    at += 28 + (pieces + 1) * 4 + pieces * 4 + blob
    map_bytes = struct.unpack_from("<iI", data, at)[1]
    at += 8 + map_bytes
    count = struct.unpack_from("<i", data, at)[0]
    at += 4
    tensors: dict[str, Array] = {}
    for _ in range(count):
        length = struct.unpack_from("<H", data, at)[0]
        name = data[at + 2 : at + 2 + length].decode()
        at += 2 + length
        _, elements, offset, size = struct.unpack_from("<BIQQ", data, at)
        at += 21
        tensors[name] = _tensor(data, elements, offset, size)
    columns = {"emb.word": hidden, "emb.pos": hidden, "emb.type": hidden}
    for name, values in list(tensors.items()):
        if name in columns or name.split(".")[-2] in {"q", "k", "v", "ao", "fi", "fo"}:
            if name.endswith(".b"):
                continue
            width = ffn if name.split(".")[-2] == "fo" else hidden
            tensors[name] = values.reshape(-1, width)
    if tensors["emb.word"].shape[0] != vocab or tensors["emb.pos"].shape[0] != positions:
        raise ValueError("the tables have another number of rows than the header says")
    if tensors["emb.type"].shape[0] != types:
        raise ValueError("the segment table has another number of rows than the header says")
    return ReferenceBert(hidden=hidden, layers=layers, heads=heads, eps=eps, tensors=tensors)


def _tensor(data: bytes, elements: int, offset: int, size: int) -> Array:
    if size == 4 * elements:
        return np.frombuffer(data, "<f4", elements, offset).copy()
    blocks = np.frombuffer(data, np.dtype([("d", "<f2"), ("q", "u1", 16)]), elements // 32, offset)
    quants: NDArray[Any] = blocks["q"]
    values = np.empty((len(blocks), 32), np.float32)
    for j in range(16):
        values[:, j] = (quants[:, j] & 0x0F).astype(np.float32) - 8
        values[:, j + 16] = (quants[:, j] >> 4).astype(np.float32) - 8
    values *= blocks["d"].astype(np.float32)[:, None]
    return values.reshape(-1)
