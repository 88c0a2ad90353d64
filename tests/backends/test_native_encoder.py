"""The native encoder: the kernels' rows under the protocol, their errors as Ondol's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.kernels.random_encoder import needs_kernels, packed_bytes, random_weights
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from ondol.backends.native_encoder import NativeEncoder
from ondol.backends.protocols import EncoderSpec
from ondol.core.errors import BackendError, ModelError
from ondol.core.types import Encoded
from ondol.kernels.packed_weights import PackedWeights, read_packed

pytestmark = needs_kernels


def encoder(folder: Path, weights: PackedWeights | None = None) -> NativeEncoder:
    tokenizer = Tokenizer(WordLevel({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "packed.bin").write_bytes(packed_bytes(random_weights()))
    return NativeEncoder(
        weights or read_packed(folder / "packed.bin"),
        folder / "tokenizer.json",
        spec=EncoderSpec("tiny", "native:int8", "embedder", 128, 300),
        threads=2,
        first_token=False,
    )


def test_texts_become_one_row_each(tmp_path: Path) -> None:
    native = encoder(tmp_path)
    items = [i for i in native.tokenize(["a", "b"], truncate=False) if isinstance(i, Encoded)]
    rows = native.run(items)
    assert rows.shape == (2, 128)
    assert np.isfinite(rows).all()
    assert native.spec.vocabulary == 2
    assert not native.spec.padded
    native.close()


def test_what_the_kernels_refuse_is_a_backend_error(tmp_path: Path) -> None:
    native = encoder(tmp_path)
    with pytest.raises(BackendError, match="token ids must lie in"):
        native.run([Encoded(ids=[90], type_ids=[0])])
    native.close()
    native.close()
    with pytest.raises(BackendError, match="closed"):
        native.run([Encoded(ids=[1], type_ids=[0])])


def test_weights_that_lack_an_array_are_a_model_error(tmp_path: Path) -> None:
    (tmp_path / "whole.bin").write_bytes(packed_bytes(random_weights()))
    whole = read_packed(tmp_path / "whole.bin")
    arrays = {name: array for name, array in whole.arrays.items() if name != "positions"}
    with pytest.raises(ModelError, match="positions"):
        encoder(tmp_path, PackedWeights(shape=whole.shape, arrays=arrays))
