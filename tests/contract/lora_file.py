"""Writes small LoRA adapters in GGUF, so that tests need no converter.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_ALIGNMENT = 32
_F32, _STRING = 6, 8
_TENSOR_F32 = 0
WIDTH = 576
"""The hidden size of SmolLM2 135M."""


def write_lora(path: Path, *, strength: float, rank: int = 4, seed: int = 0) -> Path:
    """Write random low-rank changes of SmolLM2 135M's attention outputs; 0 changes nothing."""
    random = np.random.default_rng(seed)
    tensors: dict[str, NDArray[np.float32]] = {}
    for layer in range(0, 30, 3):
        name = f"blk.{layer}.attn_output.weight"
        tensors[f"{name}.lora_a"] = _normal(random, rank, WIDTH)
        tensors[f"{name}.lora_b"] = np.float32(strength) * _normal(random, WIDTH, rank)
    path.write_bytes(_gguf(tensors, alpha=float(rank)))
    return path


def _normal(random: np.random.Generator, rows: int, columns: int) -> NDArray[np.float32]:
    return random.standard_normal((rows, columns)).astype(np.float32)


def _gguf(tensors: dict[str, NDArray[np.float32]], *, alpha: float) -> bytes:
    said = {"general.type": "adapter", "general.architecture": "llama", "adapter.type": "lora"}
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(said) + 1)
    for key, value in said.items():
        head += _text(key) + struct.pack("<I", _STRING) + _text(value)
    head += _text("adapter.lora.alpha") + struct.pack("<If", _F32, alpha)
    body = b""
    for name, tensor in tensors.items():
        rows, columns = tensor.shape
        head += _text(name)
        head += struct.pack("<IQQIQ", 2, columns, rows, _TENSOR_F32, len(body))
        body += _padded(tensor.tobytes())
    return _padded(head) + body


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % _ALIGNMENT)
