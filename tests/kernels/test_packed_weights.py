"""The file of packed weights: what it can hold, and that a damaged one is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.kernels.random_encoder import SHAPE, packed_bytes, random_items, random_weights

from ondol.kernels.kernel_error import KernelError
from ondol.kernels.packed_weights import TextSettings, packable, read_packed, write_packed


@pytest.mark.parametrize(
    ("change", "suits"),
    [({}, True), ({"hidden": 96, "heads": 3}, False), ({"heads": 8}, False), ({"ffn": 200}, False)],
)
def test_sizes_that_the_kernels_cannot_run_are_known(change: dict[str, int], suits: bool) -> None:
    assert packable(replace(SHAPE, **change)) is suits  # type: ignore[arg-type]


def test_a_file_that_is_cut_short_or_another_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "packed.bin"
    whole = packed_bytes(random_weights())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cut short"):
        read_packed(path)
    path.write_bytes(json.dumps({}).encode())
    with pytest.raises(ValueError, match="no packed weights"):
        read_packed(path)


def test_sizes_that_do_not_suit_are_refused_with_the_rule(tmp_path: Path) -> None:
    weights = random_weights()
    odd = replace(weights, shape=replace(SHAPE, heads=8))
    with pytest.raises(KernelError, match="8 heads do not suit") as refusal:
        write_packed(odd, random_items(), tmp_path / "packed.bin")
    assert "multiple of 64" in refusal.value.hint


def test_how_texts_are_given_to_the_model_comes_back(tmp_path: Path) -> None:
    weights = random_weights(replace(SHAPE, layers=1))
    texts = TextSettings("tok.json", "cls", query_prefix="질문: ", document_prefix="글: ")
    write_packed(weights, random_items(4), tmp_path / "packed.bin", texts=texts)
    packed = read_packed(tmp_path / "packed.bin")
    assert packed.texts == texts
    assert packed.shape == weights.shape
    np.testing.assert_array_equal(packed.arrays["norm.w"], weights.vector("emb.ln.w"))
    assert all(array.ctypes.data % 64 == 0 for array in packed.arrays.values())
