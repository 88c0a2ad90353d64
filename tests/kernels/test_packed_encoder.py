"""The kernels against a NumPy forward pass on small random encoders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.kernels.random_encoder import (
    SHAPE,
    TokenisedText,
    needs_kernels,
    packed_bytes,
    random_items,
    random_weights,
)

from ondol.kernels.bert import BertWeights, FloatArray
from ondol.kernels.calibration.calibration_statistics import hidden_states
from ondol.kernels.kernel_error import KernelError
from ondol.kernels.packed_encoder import PackedEncoder
from ondol.kernels.packed_weights import read_packed


@contextmanager
def encoder_of(
    weights: BertWeights, folder: Path, *, threads: int = 2, first: bool = False
) -> Iterator[PackedEncoder]:
    (folder / "packed.bin").write_bytes(packed_bytes(weights))
    packed = read_packed(folder / "packed.bin")
    encoder = PackedEncoder(packed, threads=threads, first_token=first)
    try:
        yield encoder
    finally:
        encoder.close()


def expected(
    weights: BertWeights, items: list[TokenisedText], *, first: bool = False
) -> FloatArray:
    states = hidden_states(weights, items)
    ends = np.cumsum([len(item.ids) for item in items])
    parts = np.split(states, ends[:-1])
    return np.stack([part[0] if first else part.mean(axis=0) for part in parts])


def cosines(a: FloatArray, b: FloatArray) -> FloatArray:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    similarities: FloatArray = (a * b).sum(axis=1) / norms
    return similarities


@needs_kernels
@pytest.mark.parametrize("first", [False, True], ids=["mean", "first token"])
@pytest.mark.parametrize("packed", [False, True], ids=["fp16 words", "4-bit words"])
@pytest.mark.parametrize("heads", [4, 2], ids=["heads of 32", "heads of 64"])
def test_the_kernels_agree_with_float32(
    tmp_path: Path, first: bool, packed: bool, heads: int
) -> None:
    weights = random_weights(replace(SHAPE, heads=heads), packed=packed)
    items = [*random_items(), *random_items(2, longest=290, seed=8)]
    with encoder_of(weights, tmp_path, first=first) as encoder:
        rows = encoder.run(items)
    assert cosines(rows, expected(weights, items, first=first)).min() > 0.999


@needs_kernels
@pytest.mark.parametrize(
    "length", [*range(1, 20), 31, 32, 33, 47, 48, 49, 63, 64, 65, 97, 129, 300]
)
def test_every_length_has_its_edges_right(tmp_path: Path, length: int) -> None:
    weights = random_weights()
    rng = np.random.default_rng(length)
    items = [TokenisedText(ids=rng.integers(0, 90, length).tolist(), type_ids=[0] * length)]
    with encoder_of(weights, tmp_path) as encoder:
        assert cosines(encoder.run(items), expected(weights, items))[0] > 0.999


@needs_kernels
@pytest.mark.parametrize("first", [False, True], ids=["mean", "first token"])
def test_a_text_has_the_same_bits_whatever_shares_its_batch_and_however_many_threads(
    tmp_path: Path, first: bool
) -> None:
    weights, items = random_weights(), random_items(40)
    with encoder_of(weights, tmp_path, threads=1, first=first) as encoder:
        alone = np.concatenate([encoder.run([item]) for item in items])
    for threads in (1, 2, 3, 8):
        with encoder_of(weights, tmp_path, threads=threads, first=first) as encoder:
            np.testing.assert_array_equal(encoder.run(items), alone)
            np.testing.assert_array_equal(encoder.run(items[::-1]), alone[::-1])


@needs_kernels
@pytest.mark.parametrize(
    "item",
    [
        TokenisedText(ids=[1, 90], type_ids=[0, 0]),
        TokenisedText(ids=[-1], type_ids=[0]),
        TokenisedText(ids=[], type_ids=[]),
        TokenisedText(ids=[1] * 301, type_ids=[0] * 301),
    ],
    ids=["beyond the words", "negative", "empty", "beyond the positions"],
)
def test_what_would_read_outside_the_weights_is_refused(
    tmp_path: Path, item: TokenisedText
) -> None:
    good = random_items(1)
    with encoder_of(random_weights(), tmp_path) as encoder:
        before = encoder.run(good)
        with pytest.raises(KernelError):
            encoder.run([*good, item])
        np.testing.assert_array_equal(encoder.run(good), before)


@needs_kernels
def test_a_closed_encoder_says_so(tmp_path: Path) -> None:
    with encoder_of(random_weights(), tmp_path) as encoder:
        encoder.close()
        with pytest.raises(KernelError, match="closed"):
            encoder.run(random_items(1))
