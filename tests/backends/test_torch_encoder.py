"""The torch encoder against an independent NumPy forward pass; the GPU where there is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.kernels.bert_reference import ReferenceBert, read_reference
from tests.kernels.synthetic_weights import EPS, HEADS, LAYERS, Array, e5s1_bytes
from tests.models.test_model_library import tokenizer_json

from ondol.backends.protocols import EncoderBackend, EncoderSpec
from ondol.core.errors import OutOfMemory
from ondol.core.types import Encoded
from ondol.kernels.bert import as_float
from ondol.kernels.e5s1 import read_e5s1

pytestmark = pytest.mark.extras

TEXTS = [[3, 5, 7, 9, 11], [2, 4], [1, 39, 38, 37, 36, 35, 34, 33, 20, 19]]
BATCH = [Encoded(ids=text, type_ids=[0] * len(text)) for text in TEXTS]


def cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.bin"
    path.write_bytes(e5s1_bytes())
    (tmp_path / "tokenizer.json").write_bytes(tokenizer_json())
    return path


def encoder(
    weights: Path, *, precision: str, device: str = "cpu", fraction: float = 1.0
) -> EncoderBackend:
    from ondol.backends.torch_encoder import TorchEncoder

    opened = read_e5s1(weights)
    return TorchEncoder(
        weights.parent / "tokenizer.json",
        matrix=lambda name: as_float(opened.matrix(name)),
        vector=opened.vector,
        layers=LAYERS,
        heads=HEADS,
        eps=EPS,
        spec=EncoderSpec("tiny", f"torch:{precision}", "embedder", 32, 24, device=device),
        threads=1,
        precision=precision,  # type: ignore[arg-type]  # parametrised
        pooling="mean",
        gpu_memory_fraction=fraction,
    )


def cosines(rows: Array, reference: ReferenceBert) -> Array:
    expected = np.stack([reference.sentence(text) for text in TEXTS])
    products = (rows * expected).sum(axis=1)
    return np.asarray(
        products / np.linalg.norm(rows, axis=1) / np.linalg.norm(expected, axis=1), np.float32
    )


def test_fp32_equals_the_numpy_forward_pass(weights: Path) -> None:
    rows = encoder(weights, precision="fp32").run(BATCH)
    for row, text in zip(rows, TEXTS, strict=True):
        np.testing.assert_allclose(row, read_reference(weights).sentence(text), atol=2e-5)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_is_close_and_comes_back_as_float32(weights: Path, precision: str) -> None:
    rows = encoder(weights, precision=precision).run(BATCH)
    assert rows.dtype == np.float32
    assert cosines(rows, read_reference(weights)).min() >= 0.999


def test_a_text_alone_is_the_text_in_a_batch(weights: Path) -> None:
    made = encoder(weights, precision="fp32")
    together = made.run(BATCH)
    for row, item in zip(together, BATCH, strict=True):
        np.testing.assert_allclose(made.run([item])[0], row, atol=1e-5)


def test_taking_the_padding_out_and_putting_it_back_changes_no_token() -> None:
    import torch

    from ondol.backends.torch_encoder import TokenPacking

    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1]]).bool()
    x = torch.arange(18, dtype=torch.float32).reshape(3, 3, 2)
    packing = TokenPacking(mask)
    assert packing.pack(x).shape == (6, 2)
    assert torch.equal(packing.unpack(packing.pack(x)), x * mask[:, :, None])


def test_the_packed_path_gives_what_the_padded_one_does(weights: Path) -> None:
    from ondol.backends.torch_encoder import TorchEncoder

    made = encoder(weights, precision="fp32")
    assert isinstance(made, TorchEncoder)
    padded = made.run(BATCH)
    made.packs = True
    np.testing.assert_allclose(made.run(BATCH), padded, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_gpu_agrees_and_packs(weights: Path, precision: str) -> None:
    if not cuda():
        pytest.skip("no CUDA device")
    made = encoder(weights, precision=precision, device="cuda")
    assert not made.spec.padded
    assert cosines(made.run(BATCH), read_reference(weights)).min() >= 0.999
    made.close()


@pytest.mark.gpu
def test_too_large_a_batch_on_the_gpu_is_out_of_memory_and_the_next_one_runs(
    weights: Path,
) -> None:
    if not cuda():
        pytest.skip("no CUDA device")
    made = encoder(weights, precision="fp32", device="cuda", fraction=0.005)
    with pytest.raises(OutOfMemory):
        made.run([BATCH[2]] * 2_000_000)
    assert made.run(BATCH).shape == (3, 32)
    made.close()
