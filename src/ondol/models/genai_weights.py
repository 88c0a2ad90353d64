"""A GGUF file rewritten so that OpenVINO GenAI reads it, and reads it right.

Its reader knows Q4_0, Q8_0 and Q4_K; it refuses Q5_0, reads Q4_1 two bytes out of place, and turns
Q6_K to half precision, which doubles what decoding must read. Such tensors become Q8_0 here; for
``int8`` Q4_K does too, because the reader rounds its minima to whole steps (ADR 0026).

Tokens that the vocabulary leaves unused get the embedding of the token every prompt begins with:
a prompt may then begin with any of them, read the same, and share no cached block with another.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from ondol.core.errors import ModelError
from ondol.kernels.gguf import (
    BLOCKS,
    TYPE_NUMBERS,
    BlockType,
    Bytes,
    Gguf,
    GgufTensor,
    read_gguf,
    to_q8_0,
)

GenAIPrecision = Literal["q4", "int8"]

_READ_RIGHT: dict[GenAIPrecision, frozenset[BlockType]] = {
    "q4": frozenset({"F32", "F16", "Q4_0", "Q8_0", "Q4_K"}),
    "int8": frozenset({"F32", "F16", "Q8_0"}),
}
_ARCHITECTURES = ("llama", "qwen2", "qwen3")
_NUMBERS = {name: number for number, name in TYPE_NUMBERS.items()}
_ALIGN = 32
_BATCH = 1 << 16
_UNUSED = 5
_EMBEDDING = "token_embd.weight"
_OUTPUT = "output.weight"


@dataclass(frozen=True, slots=True)
class Aliases:
    """Unused token ids that may stand for ``first``, the id that every chat prompt begins with."""

    first: int
    ids: tuple[int, ...]


def find_aliases(source: Gguf, *, opening: str) -> Aliases | None:
    """Return the stand-ins for the token ``opening``, or ``None`` where there are none.

    None where the output shares the embedding's table: the stand-ins could then be generated.
    """
    tokens = source.metadata.get("tokenizer.ggml.tokens", [])
    kinds = source.metadata.get("tokenizer.ggml.token_type", [])
    untied = any(tensor.name == _OUTPUT for tensor in source.tensors)
    unused = tuple(index for index, kind in enumerate(kinds) if kind == _UNUSED)
    if opening not in tokens or not untied or not unused:
        return None
    return Aliases(tokens.index(opening), unused)


def rewrite(
    path: Path, target: Path, *, precision: GenAIPrecision, aliases: Aliases | None
) -> None:
    """Write ``path``'s model to ``target`` in blocks that are read right.

    Raises ``ModelError`` for an architecture that GenAI cannot build, and ``OSError``.
    """
    source = read_gguf(path)
    architecture = source.metadata.get("general.architecture")
    if architecture not in _ARCHITECTURES:
        raise ModelError(
            f"OpenVINO GenAI cannot build the architecture {architecture!r} from GGUF",
            hint=f"it knows {', '.join(_ARCHITECTURES)}; use a llamacpp form",
        )
    kept = _READ_RIGHT[precision]
    plan = [(tensor, tensor.type if tensor.type in kept else "Q8_0") for tensor in source.tensors]
    with target.open("wb") as file:
        file.write(source.head)
        offset = 0
        for tensor, kind in plan:
            file.write(_entry(tensor, kind, offset))
            offset += _padded(_size(tensor, kind))
        file.write(bytes(-file.tell() % _ALIGN))
        for tensor, kind in plan:
            swap = aliases if tensor.name == _EMBEDDING else None
            _write(file, source, tensor, kind, swap)


def write_tokenizer(path: Path, target: Path) -> None:
    """Write the metadata of ``path`` without any tensor: all that its tokenizer is made of."""
    head = bytearray(read_gguf(path).head)
    head[8:16] = struct.pack("<Q", 0)
    target.write_bytes(bytes(head) + bytes(-len(head) % _ALIGN))


def _write(
    file: BinaryIO,
    source: Gguf,
    tensor: GgufTensor,
    kind: BlockType,
    aliases: Aliases | None,
) -> None:
    start = file.tell()
    for blocks in _batches(source.raw(tensor)):
        file.write((blocks if kind == tensor.type else to_q8_0(blocks, tensor.type)).tobytes())
    end = file.tell()
    if aliases is not None:
        row = GgufTensor(tensor.name, tensor.shape, kind, 0).row_bytes
        blocks = source.raw(tensor).reshape(-1, tensor.row_bytes)[aliases.first]
        blocks = blocks.reshape(-1, BLOCKS[tensor.type][1])
        data = (blocks if kind == tensor.type else to_q8_0(blocks, tensor.type)).tobytes()
        for index in aliases.ids:
            file.seek(start + index * row)
            file.write(data)
        file.seek(end)
    file.write(bytes(-(end - start) % _ALIGN))


def _batches(blocks: Bytes) -> Iterator[Bytes]:
    for start in range(0, len(blocks), _BATCH):
        yield blocks[start : start + _BATCH]


def _entry(tensor: GgufTensor, kind: BlockType, offset: int) -> bytes:
    name = tensor.name.encode()
    sizes = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
    return struct.pack("<Q", len(name)) + name + sizes + struct.pack("<IQ", _NUMBERS[kind], offset)


def _size(tensor: GgufTensor, kind: BlockType) -> int:
    return GgufTensor(tensor.name, tensor.shape, kind, 0).bytes


def _padded(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN
