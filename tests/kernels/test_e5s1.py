"""Damaged E5S1 and safetensors files end in a ``KernelError`` with a hint, never in a crash."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels.bert_reference import read_reference
from tests.kernels.synthetic_weights import e5s1_bytes, random_tensors, write_safetensors

from ondol.kernels.bert import Q4Matrix, as_float
from ondol.kernels.bert_graph import build_encoder
from ondol.kernels.e5s1 import read_e5s1
from ondol.kernels.kernel_error import KernelError
from ondol.kernels.safetensors import read_safetensors

WHOLE = e5s1_bytes()


def build(path: Path) -> None:
    """Read everything a file has to give."""
    build_encoder(read_e5s1(path), precision="fp32")


def build_safetensors(folder: Path) -> None:
    """Read everything a folder as the Hub has it has to give."""
    weights = read_safetensors(folder / "model.safetensors", config=folder / "config.json")
    build_encoder(weights, precision="fp32")


def test_matrices_are_read_as_the_layout_says(tmp_path: Path) -> None:
    path = tmp_path / "tiny.bin"
    path.write_bytes(WHOLE)
    weights = read_e5s1(path)
    reference = read_reference(path)
    assert isinstance(weights.matrix("l0.fo.w"), Q4Matrix)
    for name in ("emb.word", "emb.pos", "l0.q.w", "l1.fi.w", "l1.fo.w"):
        np.testing.assert_array_equal(as_float(weights.matrix(name)), reference.tensors[name])
    np.testing.assert_array_equal(weights.vector("l1.oln.b"), reference.tensors["l1.oln.b"])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: b"GGUF" + data[4:], "begins with"),
        (lambda data: b"", "begins with"),
        (lambda data: data[:30], "damaged"),
        (lambda data: data[:70], "damaged"),
        (lambda data: data[: len(data) - 100], "past the end"),
        (lambda data: data[:4] + struct.pack("<I", 9) + data[8:], "version 9"),
        (lambda data: data[:8] + struct.pack("<i", -32) + data[12:], "not positive"),
        (lambda data: data[:8] + struct.pack("<i", 33) + data[12:], "do not fit"),
        (lambda data: data[:16] + struct.pack("<i", 0) + data[20:], "not positive"),
        (lambda data: data[:24] + struct.pack("<i", 41) + data[28:], "the header says"),
        (lambda data: data[:64] + struct.pack("<Q", 2**60) + data[72:], "past the end"),
    ],
)
def test_a_damaged_file_is_a_model_error(
    tmp_path: Path, damage: Callable[[bytes], bytes], said: str
) -> None:
    path = tmp_path / "broken.bin"
    path.write_bytes(damage(WHOLE))
    with pytest.raises(KernelError, match=said) as caught:
        build(path)
    assert "pull" in caught.value.hint


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    tensors = random_tensors()
    del tensors["l1.oln.b"]
    path = tmp_path / "broken.bin"
    path.write_bytes(e5s1_bytes(tensors))
    with pytest.raises(KernelError, match=r"l1\.oln\.b is missing"):
        build(path)


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 1400), value=st.integers(0, 255))
def test_any_changed_byte_of_the_head_reads_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "fuzzed.bin"
    path.write_bytes(WHOLE[:at] + bytes([value]) + WHOLE[at + 1 :])
    with suppress(KernelError):
        weights = read_e5s1(path)
        weights.matrix("emb.word")
        weights.vector("l0.fi.b")


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-64])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncate, "points outside"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 64), "claims"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "damaged"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x02" + b"\0" * 7 + b"[]"), "directory"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json is damaged"),
        (lambda f: change_config(f, model_type="gpt2"), "architecture 'gpt2'"),
        (lambda f: change_config(f, hidden_act="relu"), "activation 'relu'"),
        (lambda f: change_config(f, hidden_size="wide"), "not a number"),
        (lambda f: change_config(f, vocab_size=41), "config.json says"),
        (lambda f: change_config(f, num_hidden_layers=3), "is missing"),
    ],
)
def test_damaged_safetensors_are_a_model_error(
    tmp_path: Path, damage: Callable[[Path], object], said: str
) -> None:
    write_safetensors(tmp_path, random_tensors())
    damage(tmp_path)
    with pytest.raises(KernelError, match=said) as caught:
        build_safetensors(tmp_path)
    assert caught.value.hint
