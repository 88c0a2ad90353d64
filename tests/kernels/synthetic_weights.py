"""Writes tiny encoders in the real file formats: E5S1, and safetensors with ``config.json``."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

HIDDEN, LAYERS, HEADS, FFN, VOCAB, POSITIONS, TYPES = 32, 2, 4, 64, 40, 24, 2
EPS = 1e-12


def random_tensors(seed: int = 7, *, vocab: int = VOCAB) -> dict[str, Array]:
    """Return every tensor of a tiny encoder under its E5S1 name."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int, scale: float = 0.3) -> Array:
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    tensors = {
        "emb.word": draw(vocab, HIDDEN),
        "emb.pos": draw(POSITIONS, HIDDEN, scale=0.1),
        "emb.type": draw(TYPES, HIDDEN, scale=0.1),
    }
    shapes = {"q": (HIDDEN, HIDDEN), "k": (HIDDEN, HIDDEN), "v": (HIDDEN, HIDDEN)}
    shapes |= {"ao": (HIDDEN, HIDDEN), "fi": (FFN, HIDDEN), "fo": (HIDDEN, FFN)}
    norms = ["emb.ln"]
    for layer in range(LAYERS):
        for name, shape in shapes.items():
            tensors[f"l{layer}.{name}.w"] = draw(*shape)
            tensors[f"l{layer}.{name}.b"] = draw(shape[0], scale=0.05)
        norms += [f"l{layer}.aln", f"l{layer}.oln"]
    for norm in norms:
        tensors[f"{norm}.w"] = 1 + draw(HIDDEN, scale=0.1)
        tensors[f"{norm}.b"] = draw(HIDDEN, scale=0.1)
    return tensors


def e5s1_bytes(tensors: Mapping[str, Array] | None = None, *, heads: int = HEADS) -> bytes:
    """Return an E5S1 file; matrices of layers and the word table become Q4_0, the rest float32."""
    tensors = random_tensors() if tensors is None else tensors
    vocab = tensors["emb.word"].shape[0]
    head = struct.pack(
        "<4sI7ifi", b"E5S1", 1, HIDDEN, LAYERS, heads, FFN, vocab, POSITIONS, TYPES, EPS, 32
    )
    blob = b"abc"
    head += struct.pack("<5iQ", 3, 0, 2, 1, 3, len(blob))
    head += struct.pack("<4I3f", 0, 1, 2, 3, 0.0, -1.0, -2.0) + blob
    head += struct.pack("<iI", 1, 5) + b"\0" * 5
    stored = {name: _stored(name, value) for name, value in tensors.items()}
    directory_size = 4 + sum(2 + len(name) + 21 for name in stored)
    offset = len(head) + directory_size
    directory = struct.pack("<i", len(stored))
    for name, raw in stored.items():
        elements = tensors[name].size
        directory += struct.pack("<H", len(name)) + name.encode()
        directory += struct.pack("<BIQQ", int(len(raw) != 4 * elements), elements, offset, len(raw))
        offset += len(raw)
    return head + directory + b"".join(stored.values())


def _stored(name: str, value: Array) -> bytes:
    if value.ndim == 1 or name in {"emb.pos", "emb.type"}:
        return value.astype("<f4").tobytes()
    blocks = value.reshape(-1, 32)
    scale = (np.abs(blocks).max(axis=1) / 7).astype(np.float16)
    quants = np.clip(np.rint(blocks / scale.astype(np.float32)[:, None]), -8, 7).astype(np.int8) + 8
    packed = np.empty(len(blocks), np.dtype([("d", "<f2"), ("q", "u1", 16)]))
    packed["d"] = scale
    packed["q"] = (quants[:, :16] | (quants[:, 16:] << 4)).astype(np.uint8)
    return packed.tobytes()


_NATIVE = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_TABLES = {"word": "word_embeddings", "pos": "position_embeddings", "type": "token_type_embeddings"}


def write_safetensors(
    folder: Path,
    tensors: Mapping[str, Array],
    *,
    kind: str = "bert",
    dtype: str = "F32",
    head: Mapping[str, Array] | None = None,
) -> None:
    """Write ``model.safetensors`` and ``config.json`` as the Hub has them."""
    prefix = "roberta." if kind == "xlm-roberta" and head else ""
    skipped = 2 if kind == "xlm-roberta" else 0
    native: dict[str, Array] = {}
    for name, value in tensors.items():
        if name == "emb.pos" and skipped:
            value = np.concatenate([np.full((skipped, HIDDEN), 9, np.float32), value])
        native[prefix + hub_name(name)] = value
    native |= head or {}
    write_tensors(folder / "model.safetensors", native, dtype)
    config: dict[str, Any] = {
        "model_type": kind,
        "hidden_act": "gelu",
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": FFN,
        "vocab_size": tensors["emb.word"].shape[0],
        "max_position_embeddings": POSITIONS + skipped,
        "type_vocab_size": TYPES,
        "layer_norm_eps": EPS,
        "pad_token_id": 1 if skipped else 0,
    }
    (folder / "config.json").write_text(json.dumps(config), "utf-8")


def hub_name(name: str) -> str:
    """Return what the Hub calls the tensor ``name`` (canonical)."""
    parts = name.split(".")
    if parts[0] == "emb":
        if parts[1] == "ln":
            return f"embeddings.LayerNorm.{'weight' if parts[2] == 'w' else 'bias'}"
        return f"embeddings.{_TABLES[parts[1]]}.weight"
    suffix = "weight" if parts[2] == "w" else "bias"
    return f"encoder.layer.{parts[0][1:]}.{_NATIVE[parts[1]]}.{suffix}"


def write_tensors(path: Path, tensors: Mapping[str, Array], dtype: str = "F32") -> None:
    """Write a safetensors file of ``tensors`` under the names given."""
    directory: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, value in tensors.items():
        if dtype == "BF16":
            raw = (value.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
        else:
            raw = value.astype("<f2" if dtype == "F16" else "<f4").tobytes()
        directory[name] = {
            "dtype": dtype,
            "shape": list(value.shape),
            "data_offsets": [len(body), len(body) + len(raw)],
        }
        body += raw
    header = json.dumps(directory).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + body)
