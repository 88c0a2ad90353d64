"""Random encoders that the kernels can run, with channels as uneven as real ones, and their files."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from ondol.kernels.bert import BertShape, BertWeights, FloatArray, Matrix, Q4Matrix, expected_shape
from ondol.kernels.packed_encoder import is_built
from ondol.kernels.packed_weights import write_packed
from ondol.kernels.processor import processor_suits

needs_kernels = pytest.mark.skipif(
    not (processor_suits() and is_built()),
    reason="needs AVX512-VNNI, AVX512-BF16 and a C compiler at install",
)


@dataclass(frozen=True, slots=True)
class TokenisedText:
    """Token ids and segment ids of equal length."""

    ids: list[int]
    type_ids: list[int]


SHAPE = BertShape(
    hidden=128, layers=2, heads=4, ffn=256, vocab=90, positions=300, types=2, eps=1e-12
)


@cache
def random_weights(shape: BertShape = SHAPE, *, seed: int = 3, packed: bool = False) -> BertWeights:
    """An encoder of ``shape`` with some channels far larger than the others, as real ones have."""
    made: dict[str, FloatArray] = {}

    def tensor(name: str) -> FloatArray:
        if name not in made:
            rng = np.random.default_rng([seed, *name.encode()])
            size = expected_shape(name, shape)
            values = rng.standard_normal(size).astype(np.float32)
            if name.endswith("ln.w"):
                values = 1 + 0.1 * values
                values[::37] *= 8
            elif name.endswith(".w"):
                values *= np.float32(0.8 / np.sqrt(size[-1]))
            made[name] = values if not name.endswith(".b") else values * np.float32(0.1)
        return made[name]

    def matrix(name: str) -> Matrix:
        if packed and name == "emb.word":
            rng = np.random.default_rng(seed)
            rows, columns = shape.vocab, shape.hidden
            return Q4Matrix(
                packed=rng.integers(0, 256, (rows, columns // 2), np.uint8),
                scales=rng.uniform(0.05, 0.2, (rows, columns // 32))
                .astype(np.float16)
                .astype(np.float32),
            )
        return tensor(name)

    return BertWeights(shape=shape, matrix=matrix, vector=tensor)


def random_items(count: int = 24, *, longest: int = 60, seed: int = 5) -> list[TokenisedText]:
    rng = np.random.default_rng(seed)
    items = []
    for _ in range(count):
        length = int(rng.integers(1, longest + 1))
        ids = rng.integers(0, SHAPE.vocab, length).tolist()
        cut = int(rng.integers(0, length + 1))
        items.append(TokenisedText(ids=ids, type_ids=[0] * cut + [1] * (length - cut)))
    return items


@cache
def packed_bytes(weights: BertWeights) -> bytes:
    """Return the file of ``weights``; rounding takes most of a test's time and is done once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "packed.bin"
        write_packed(weights, random_items(seed=99), path)
        return path.read_bytes()
