"""GGUF files read and rewritten: blocks against plain arithmetic, and what OpenVINO GenAI would see."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ondol.core.errors import ModelError
from ondol.kernels.gguf import (
    BLOCKS,
    TYPE_NUMBERS,
    BlockType,
    Bytes,
    dequantised,
    read_gguf,
    to_q8_0,
)
from ondol.kernels.kernel_error import KernelError
from ondol.models.genai_weights import find_aliases, rewrite, write_tokenizer

NUMBERS = {name: number for number, name in TYPE_NUMBERS.items()}
QUANTISED: list[BlockType] = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
HALVES: dict[BlockType, tuple[int, ...]] = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "Q4_K": (0, 2),
    "Q5_K": (0, 2), "Q6_K": (208,),
}  # fmt: skip


def blocks_of(kind: BlockType, count: int, *, seed: int = 0) -> Bytes:
    """Random blocks whose half-precision scales are ordinary numbers."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (count, BLOCKS[kind][1]), dtype=np.uint8)
    for at in HALVES[kind]:
        scale = rng.uniform(0.01, 0.1, (count, 1)).astype("<f2")
        blocks[:, at : at + 2] = scale.view(np.uint8)
    return blocks


def half(block: Bytes, at: int) -> float:
    return float(np.frombuffer(block[at : at + 2].tobytes(), "<f2")[0])


def value(block: Bytes, kind: BlockType, i: int) -> float:
    """One element, by the format's description, one at a time."""
    b = [int(x) for x in block]
    d = half(block, HALVES[kind][0])
    if kind == "Q8_0":
        return d * (b[2 + i] - 256 * (b[2 + i] > 127))
    if kind in ("Q4_0", "Q4_1", "Q5_0", "Q5_1"):
        start = {"Q4_0": 2, "Q4_1": 4, "Q5_0": 6, "Q5_1": 8}[kind]
        q = (b[start + i % 16] >> (4 * (i >= 16))) & 15
        if kind in ("Q5_0", "Q5_1"):
            q |= ((b[start - 4 + i // 8] >> (i % 8)) & 1) << 4
        shift = {"Q4_0": -8 * d, "Q5_0": -16 * d}.get(kind)
        return d * q + (half(block, 2) if shift is None else shift)
    if kind == "Q6_K":
        h, r = divmod(i, 128)
        part, j = divmod(r, 32)
        low = (b[64 * h + j + 32 * (part % 2)] >> (4 * (part // 2))) & 15
        q = low | (((b[128 + 32 * h + j] >> (2 * part)) & 3) << 4)
        scale = b[192 + i // 16] - 256 * (b[192 + i // 16] > 127)
        return d * scale * (q - 32)
    group, j = divmod(i, 32)
    scales = b[4:16]
    if group < 4:
        sc, m = scales[group] & 63, scales[group + 4] & 63
    else:
        sc = (scales[group + 4] & 15) | ((scales[group - 4] >> 6) << 4)
        m = (scales[group + 4] >> 4) | ((scales[group] >> 6) << 4)
    start = 16 if kind == "Q4_K" else 48
    q = (b[start + 32 * (group // 2) + j] >> (4 * (group % 2))) & 15
    if kind == "Q5_K":
        q |= ((b[16 + j] >> group) & 1) << 4
    return d * sc * q - half(block, 2) * m


@pytest.mark.parametrize("kind", QUANTISED)
def test_blocks_are_read_as_the_format_says(kind: BlockType) -> None:
    blocks = blocks_of(kind, 3)
    found = dequantised(blocks, kind)
    expected = [[value(block, kind, i) for i in range(BLOCKS[kind][0])] for block in blocks]

    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", QUANTISED)
def test_eight_bits_hold_what_fewer_held(kind: BlockType) -> None:
    blocks = blocks_of(kind, 40, seed=1)
    before = dequantised(blocks, kind).reshape(-1, 32)
    after = dequantised(to_q8_0(blocks, kind), "Q8_0")
    step = np.abs(before).max(1, keepdims=True) / 127

    assert (np.abs(after - before) <= 0.6 * step + 1e-6).all()
    if kind == "Q5_0":
        np.testing.assert_array_equal(after, before)


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf(
    tensors: dict[str, tuple[tuple[int, int], BlockType]], *, architecture: str = "qwen2"
) -> bytes:
    """A GGUF file with random tensors and a vocabulary of six tokens, two of them unused."""
    tokens = ["a", "b", "<|im_start|>", "<|im_end|>", "[PAD4]", "[PAD5]"]
    kinds = [1, 1, 3, 3, 5, 5]
    meta = string("general.architecture") + struct.pack("<I", 8) + string(architecture)
    meta += string("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 6)
    meta += b"".join(map(string, tokens))
    meta += string("tokenizer.ggml.token_type") + struct.pack("<IIQ6i", 9, 5, 6, *kinds)
    entries, data = b"", b""
    for name, (shape, kind) in tensors.items():
        entries += string(name) + struct.pack("<I2QIQ", 2, *shape, NUMBERS[kind], len(data))
        raw = blocks_of(kind, shape[0] * shape[1] // BLOCKS[kind][0]).tobytes()
        data += raw + bytes(-len(raw) % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 3) + meta + entries
    return head + bytes(-len(head) % 32) + data


TENSORS: dict[str, tuple[tuple[int, int], BlockType]] = {
    "token_embd.weight": ((256, 6), "Q5_0"),
    "blk.0.ffn_down.weight": ((256, 4), "Q4_K"),
    "blk.0.attn_v.weight": ((256, 2), "Q4_1"),
    "output.weight": ((256, 6), "Q6_K"),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf(TENSORS))
    return path


def tables(path: Path) -> dict[str, Any]:
    found = read_gguf(path)
    return {
        t.name: (t.type, dequantised(found.raw(t), t.type).reshape(t.shape[1], -1))
        for t in found.tensors
    }


@pytest.mark.parametrize(("precision", "kept"), [("q4", "Q4_K"), ("int8", "Q8_0")])
def test_only_blocks_that_are_read_right_are_left(
    model: Path, tmp_path: Path, precision: Any, kept: str
) -> None:
    target = tmp_path / "out.gguf"
    rewrite(model, target, precision=precision, aliases=None)
    before, after = tables(model), tables(target)

    assert [kind for kind, _ in after.values()] == ["Q8_0", kept, "Q8_0", "Q8_0"]
    for name, (_, values) in after.items():
        span = np.abs(before[name][1]).max()
        np.testing.assert_allclose(values, before[name][1], atol=0.006 * span)
    assert read_gguf(target).metadata == read_gguf(model).metadata


def test_unused_tokens_stand_in_for_the_first(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.gguf"
    aliases = find_aliases(read_gguf(model), opening="<|im_start|>")
    assert aliases is not None
    assert (aliases.first, aliases.ids) == (2, (4, 5))
    rewrite(model, target, precision="q4", aliases=aliases)
    rows, original = tables(target)["token_embd.weight"][1], tables(model)["token_embd.weight"][1]

    np.testing.assert_array_equal(rows[[4, 5]], original[[2, 2]])
    np.testing.assert_array_equal(rows[:4], original[:4])
    np.testing.assert_array_equal(
        tables(target)["blk.0.ffn_down.weight"][1], tables(model)["blk.0.ffn_down.weight"][1]
    )


def test_there_are_no_stand_ins_where_they_could_be_generated(tmp_path: Path) -> None:
    path = tmp_path / "tied.gguf"
    path.write_bytes(gguf({"token_embd.weight": ((256, 6), "Q8_0")}))

    assert find_aliases(read_gguf(path), opening="<|im_start|>") is None


def test_a_tokenizer_file_has_the_metadata_and_no_tensor(model: Path, tmp_path: Path) -> None:
    write_tokenizer(model, tmp_path / "tokenizer.gguf")
    found = read_gguf(tmp_path / "tokenizer.gguf")

    assert found.tensors == ()
    assert found.metadata == read_gguf(model).metadata


def test_an_architecture_that_cannot_be_built_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(gguf(TENSORS, architecture="exaone"))
    with pytest.raises(ModelError, match="exaone"):
        rewrite(path, tmp_path / "out.gguf", precision="q4", aliases=None)


@pytest.mark.parametrize("damage", ["cut", "magic", "type"])
def test_a_damaged_file_is_named(model: Path, damage: str) -> None:
    data = model.read_bytes()
    broken = {
        "cut": data[:-400],
        "magic": b"GGML" + data[4:],
        "type": data.replace(struct.pack("<QI", 6, 6), struct.pack("<QI", 6, 77), 1),
    }
    model.write_bytes(broken[damage])
    with pytest.raises(KernelError, match="model.gguf cannot be read"):
        read_gguf(model)
