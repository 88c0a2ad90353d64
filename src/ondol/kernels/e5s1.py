"""Reads the E5S1 file: a BERT encoder in Q4_0 blocks and float32, with its tokenizer.

Layout (little-endian): magic, version, seven sizes, eps, block size, a tokenizer that is skipped
(``tokenizer.json`` is used instead), then a directory of named tensors. Every offset is checked
against the file's size before anything is read, so a lying file is a ``KernelError``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ondol.kernels.bert import (
    BLOCK,
    BertShape,
    BertWeights,
    FloatArray,
    Matrix,
    Q4Matrix,
    expected_shape,
)
from ondol.kernels.kernel_error import KernelError

MAGIC = b"E5S1"
_HEADER = struct.Struct("<4sI7ifi")  # magic, version, seven sizes, eps, block size
_TOKENIZER = struct.Struct("<5iQ")  # pieces, four ids, bytes of text; skipped
_ENTRY_TAIL = struct.Struct("<BIQQ")  # code, elements, offset, bytes
_BLOCK_BYTES = 2 + BLOCK // 2  # an fp16 scale, then two elements a byte
_MOST_TENSORS = 100_000
"""Far above any encoder's (16 a layer), so that a lying count ends at once."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies: ``size`` bytes from ``offset`` on; ``code`` is the format's own mark."""

    code: int
    elements: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A file's sizes, where its directory of tensors begins, and the directory."""

    shape: BertShape
    directory: int
    tensors: dict[str, StoredTensor]


def read_e5s1(path: Path) -> BertWeights:
    """Open an E5S1 file; tensors are read one at a time when asked for.

    Raises ``KernelError`` when the file is not E5S1, is cut short, or points outside itself.
    """
    layout = read_layout(path)
    reader = _Reader(path=path, shape=layout.shape, tensors=layout.tensors)
    return BertWeights(shape=layout.shape, matrix=reader.matrix, vector=reader.vector)


def read_layout(path: Path) -> Layout:
    """Return where everything lies in an E5S1 file; raises as ``read_e5s1`` does."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            shape = _read_header(file, path)
            _skip_tokenizer(file, size)
            directory = file.tell()
            return Layout(shape, directory, _read_directory(file, size))
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise _damaged(path, str(error)) from None


@dataclass(frozen=True, slots=True)
class _Reader:
    path: Path
    shape: BertShape
    tensors: dict[str, StoredTensor]

    def matrix(self, name: str) -> Matrix:
        rows, columns = expected_shape(name, self.shape)
        tensor = self._tensor(name, rows * columns)
        if tensor.size == 4 * tensor.elements:
            return self._floats(tensor).reshape(rows, columns)
        raw = self._bytes(tensor).reshape(rows, columns // BLOCK, _BLOCK_BYTES)
        scales = raw[:, :, :2].copy().view("<f2")[:, :, 0].astype(np.float32)
        return Q4Matrix(packed=_interleaved(raw[:, :, 2:]), scales=scales)

    def vector(self, name: str) -> FloatArray:
        (elements,) = expected_shape(name, self.shape)
        tensor = self._tensor(name, elements)
        if tensor.size != 4 * elements:
            raise _damaged(self.path, f"vector {name} is not float32")
        return self._floats(tensor)

    def _tensor(self, name: str, elements: int) -> StoredTensor:
        tensor = self.tensors.get(name)
        if tensor is None:
            raise _damaged(self.path, f"tensor {name} is missing")
        if tensor.elements != elements:
            raise _damaged(
                self.path,
                f"tensor {name} has {tensor.elements} elements, the header says {elements}",
            )
        return tensor

    def _bytes(self, tensor: StoredTensor) -> NDArray[np.uint8]:
        data = np.fromfile(self.path, np.uint8, count=tensor.size, offset=tensor.offset)
        if data.size != tensor.size:
            raise _damaged(self.path, "the file became shorter while it was read")
        return data

    def _floats(self, tensor: StoredTensor) -> FloatArray:
        return self._bytes(tensor).view("<f4").astype(np.float32, copy=False)


def _interleaved(halves: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn Q4_0's nibbles (byte j: elements j and j + 16) into pairs of neighbours."""
    rows, blocks, half = halves.shape
    packed = np.empty((rows, blocks, half), np.uint8)
    low, high = halves & 15, halves >> 4
    packed[:, :, : half // 2] = low[:, :, 0::2] | (low[:, :, 1::2] << 4)
    packed[:, :, half // 2 :] = high[:, :, 0::2] | (high[:, :, 1::2] << 4)
    return packed.reshape(rows, blocks * half)


def _read_header(file: BinaryIO, path: Path) -> BertShape:
    raw = file.read(_HEADER.size)
    if raw[:4] != MAGIC:
        raise KernelError(
            f"{path.name} begins with {raw[:4]!r}; an E5S1 file begins with {MAGIC!r}",
            hint="delete the file and pull the model again",
        )
    _, version, hidden, layers, heads, ffn, vocab, positions, types, eps, block = _HEADER.unpack(
        raw
    )
    if version != 1 or block != BLOCK:
        raise KernelError(
            f"{path.name} is E5S1 version {version} with blocks of {block}; "
            f"version 1 with blocks of {BLOCK} can be read",
            hint="pull the version of the model that this release of Ondol names",
        )
    if min(hidden, layers, heads, ffn, vocab, positions, types) < 1:
        raise ValueError("a size in the header is not positive")
    if hidden % BLOCK or ffn % BLOCK or hidden % heads:
        raise ValueError(f"hidden size {hidden} and ffn {ffn} do not fit blocks and {heads} heads")
    return BertShape(hidden, layers, heads, ffn, vocab, positions, types, float(eps))


def _skip_tokenizer(file: BinaryIO, size: int) -> None:
    pieces, _, _, _, _, blob = _TOKENIZER.unpack(file.read(_TOKENIZER.size))
    if pieces < 0:
        raise ValueError("the tokenizer has a negative number of pieces")
    _skip(file, (pieces + 1) * 4 + pieces * 4 + blob, size)
    _, map_bytes = struct.unpack("<iI", file.read(8))
    _skip(file, map_bytes, size)


def _skip(file: BinaryIO, count: int, size: int) -> None:
    if file.tell() + count > size:
        raise ValueError("the tokenizer reaches past the end of the file")
    file.seek(count, 1)


def _read_directory(file: BinaryIO, size: int) -> dict[str, StoredTensor]:
    (count,) = struct.unpack("<i", file.read(4))
    if not 0 < count <= _MOST_TENSORS:
        raise ValueError(f"the directory claims {count} tensors")
    tensors: dict[str, StoredTensor] = {}
    for _ in range(count):
        (length,) = struct.unpack("<H", file.read(2))
        name = file.read(length).decode("utf-8")
        code, elements, offset, stored = _ENTRY_TAIL.unpack(file.read(_ENTRY_TAIL.size))
        if offset + stored > size:
            raise ValueError(f"tensor {name} reaches past the end of the file")
        if stored != 4 * elements and stored * BLOCK != elements * _BLOCK_BYTES:
            raise ValueError(f"tensor {name} has {stored} bytes for {elements} elements")
        tensors[name] = StoredTensor(code, elements, offset, stored)
    return tensors


def _damaged(path: Path, reason: str) -> KernelError:
    return KernelError(
        f"{path.name} is damaged: {reason}", hint="delete the file and pull the model again"
    )
