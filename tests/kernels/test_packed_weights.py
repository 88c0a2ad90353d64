"""The kernels and the packed weights, against a NumPy forward pass on small random encoders."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from ondol.backends.base import EncoderSpec
from ondol.backends.native_encoder import NativeEncoder
from ondol.core.errors import BackendError
from ondol.core.types import Encoded
from ondol.kernels.bert import BertShape, BertWeights, FloatArray, Matrix, Q4Matrix, expected_shape
from ondol.kernels.calibration.statistics import hidden_states
from ondol.kernels.native_library import is_built
from ondol.kernels.packed_weights import packable, read_packed, write_packed
from ondol.kernels.processor import processor_suits
from ondol.kernels.rounding import round_weights, smoothing

needs_kernels = pytest.mark.skipif(
    not (processor_suits() and is_built()),
    reason="needs AVX512-VNNI, AVX512-BF16 and a C compiler at install",
)

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


def random_items(count: int = 24, *, longest: int = 60, seed: int = 5) -> list[Encoded]:
    rng = np.random.default_rng(seed)
    items = []
    for _ in range(count):
        length = int(rng.integers(1, longest + 1))
        ids = rng.integers(0, SHAPE.vocab, length).tolist()
        cut = int(rng.integers(0, length + 1))
        items.append(Encoded(ids=ids, type_ids=[0] * cut + [1] * (length - cut)))
    return items


@cache
def packed_bytes(weights: BertWeights) -> bytes:
    """Return the file of ``weights``; rounding takes most of a test's time and is done once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "packed.bin"
        write_packed(weights, random_items(seed=99), path)
        return path.read_bytes()


@contextmanager
def encoder_of(
    weights: BertWeights, folder: Path, *, threads: int = 2, first: bool = False
) -> Iterator[NativeEncoder]:
    tokenizer = Tokenizer(WordLevel({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "packed.bin").write_bytes(packed_bytes(weights))
    packed = read_packed(folder / "packed.bin")
    encoder = NativeEncoder(
        packed.arrays,
        folder / "tokenizer.json",
        spec=EncoderSpec("tiny", "native:int8", "embedder", packed.shape.hidden, 300),
        threads=threads,
        layers=packed.shape.layers,
        heads=packed.shape.heads,
        eps=packed.shape.eps,
        pooling="cls" if first else "mean",
    )
    try:
        yield encoder
    finally:
        encoder.close()


def expected(weights: BertWeights, items: list[Encoded], *, first: bool = False) -> FloatArray:
    states = hidden_states(weights, items)
    ends = np.cumsum([item.tokens for item in items])
    parts = np.split(states, ends[:-1])
    return np.stack([part[0] if first else part.mean(axis=0) for part in parts])


def cosines(a: FloatArray, b: FloatArray) -> FloatArray:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    found: FloatArray = (a * b).sum(axis=1) / norms
    return found


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
    items = [Encoded(ids=rng.integers(0, 90, length).tolist(), type_ids=[0] * length)]
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
        Encoded(ids=[1, 90], type_ids=[0, 0]),
        Encoded(ids=[-1], type_ids=[0]),
        Encoded(ids=[], type_ids=[]),
        Encoded(ids=[1] * 301, type_ids=[0] * 301),
    ],
    ids=["beyond the words", "negative", "empty", "beyond the positions"],
)
def test_what_would_read_outside_the_weights_is_refused(tmp_path: Path, item: Encoded) -> None:
    good = random_items(1)
    with encoder_of(random_weights(), tmp_path) as encoder:
        before = encoder.run(good)
        with pytest.raises(BackendError):
            encoder.run([*good, item])
        np.testing.assert_array_equal(encoder.run(good), before)


@needs_kernels
def test_a_closed_encoder_says_so(tmp_path: Path) -> None:
    with encoder_of(random_weights(), tmp_path) as encoder:
        encoder.close()
        with pytest.raises(BackendError, match="closed"):
            encoder.run(random_items(1))


def test_rounding_makes_up_for_its_errors_where_inputs_go_together() -> None:
    rng = np.random.default_rng(1)
    mixing = rng.standard_normal((64, 8))
    inputs = (rng.standard_normal((500, 8)) @ mixing.T).astype(np.float32)
    weights = rng.standard_normal((16, 64)).astype(np.float32)
    moments = (inputs.T @ inputs).astype(np.float64) / len(inputs)
    rounded = round_weights(weights, moments)
    nearest = np.rint(weights / rounded.scales[:, None])
    wanted = inputs @ weights.T

    def error(values: FloatArray) -> float:
        return float(np.square(inputs @ (values * rounded.scales[:, None]).T - wanted).mean())

    assert np.abs(rounded.values).max() <= 127
    assert error(rounded.values.astype(np.float32)) < 0.5 * error(nearest)


def test_rounding_refuses_moments_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match="not finite"):
        round_weights(np.ones((2, 2), np.float32), np.full((2, 2), np.nan))


def test_smoothing_scales_a_channel_of_large_inputs_down() -> None:
    rng = np.random.default_rng(2)
    inputs = rng.standard_normal((100, 32)).astype(np.float32)
    inputs[:, 3] *= 50
    factors = smoothing(np.abs(inputs).max(axis=0), rng.standard_normal((8, 32)).astype(np.float32))
    assert factors[3] == factors.min()
    assert factors[3] < 0.3 * np.median(factors)


@pytest.mark.parametrize(
    ("change", "suits"),
    [({}, True), ({"hidden": 96, "heads": 3}, False), ({"heads": 8}, False), ({"ffn": 200}, False)],
)
def test_sizes_that_the_kernels_cannot_run_are_known(change: dict[str, int], suits: bool) -> None:
    assert packable(replace(SHAPE, **change)) is suits  # type: ignore[arg-type]


def test_a_file_that_is_cut_short_or_another_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "packed.bin"
    write_packed(random_weights(), random_items(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cut short"):
        read_packed(path)
    path.write_bytes(json.dumps({}).encode())
    with pytest.raises(ValueError, match="no packed weights"):
        read_packed(path)
