"""The GGUF container: metadata, tensor directory and raw tensor bytes, read in place.

Knows the layout of the file and the sizes of block types, not what weights mean. Tensor bytes are
views into the mapped file. Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ondol.kernels.kernel_error import KernelError

Bytes = NDArray[np.uint8]
BlockType = Literal["F32", "F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]

TYPE_NUMBERS: Final[dict[int, BlockType]] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 12: "Q4_K",
    13: "Q5_K", 14: "Q6_K",
}  # fmt: skip
BLOCKS: Final[dict[BlockType, tuple[int, int]]] = {
    "F32": (1, 4), "F16": (1, 2), "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22),
    "Q5_1": (32, 24), "Q8_0": (32, 34), "Q4_K": (256, 144), "Q5_K": (256, 176),
    "Q6_K": (256, 210),
}  # fmt: skip
"""Elements and bytes of one block."""

_PLAIN = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LARGEST_HEADER = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One entry of the directory; ``shape`` is in GGUF's order, the row length first."""

    name: str
    shape: tuple[int, ...]
    type: BlockType
    offset: int

    @property
    def bytes(self) -> int:
        elements, size = BLOCKS[self.type]
        return prod(self.shape) // elements * size

    @property
    def row_bytes(self) -> int:
        elements, size = BLOCKS[self.type]
        return self.shape[0] // elements * size


@dataclass(frozen=True, slots=True)
class Gguf:
    """An opened file. ``head`` is everything before the tensor directory, as it stands."""

    path: Path
    metadata: dict[str, Any]
    tensors: tuple[GgufTensor, ...]
    head: bytes
    data: Bytes

    def raw(self, tensor: GgufTensor) -> Bytes:
        """Return the tensor's bytes as blocks ``(blocks, bytes of one)``."""
        cut = self.data[tensor.offset : tensor.offset + tensor.bytes]
        return cut.reshape(-1, BLOCKS[tensor.type][1])


def read_gguf(path: Path) -> Gguf:
    """Open a GGUF file; raises ``KernelError`` for one that is damaged or of an unknown kind."""
    try:
        mapped: Bytes = np.memmap(path, np.uint8, mode="r")
        return _read(path, mapped)
    except (OSError, ValueError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise KernelError(
            f"{path.name} cannot be read as GGUF: {error or type(error).__name__}",
            hint="fetch it again with `ondol models pull`",
        ) from error


def _read(path: Path, mapped: Bytes) -> Gguf:
    reader = _Reader(mapped[:_LARGEST_HEADER])
    if reader.take(4) != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    _, tensors, keys = reader.unpack("IQQ")
    metadata = {}
    for _ in range(keys):
        name = reader.string()
        metadata[name] = reader.value(reader.unpack("I")[0])
    directory_at = reader.at
    found = [_tensor(reader) for _ in range(tensors)]
    step = int(metadata.get("general.alignment", 32))
    start = -(-reader.at // step) * step
    for tensor in found:
        if start + tensor.offset + tensor.bytes > mapped.size:
            raise ValueError(f"it ends before {tensor.name} does")
    return Gguf(path, metadata, tuple(found), mapped[:directory_at].tobytes(), mapped[start:])


def _tensor(reader: _Reader) -> GgufTensor:
    name = reader.string()
    shape = reader.unpack(f"{reader.unpack('I')[0]}Q")
    number, offset = reader.unpack("IQ")
    if number not in TYPE_NUMBERS:
        raise ValueError(f"{name} is of block type {number}, which is not known here")
    return GgufTensor(name, shape, TYPE_NUMBERS[number], offset)


class _Reader:
    """A place in the header that moves on with each value read."""

    def __init__(self, data: Bytes) -> None:
        self._data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self._data):
            raise ValueError("it ends in the middle of its header")
        self.at += count
        return self._data[self.at - count : self.at].tobytes()

    def unpack(self, layout: str) -> tuple[Any, ...]:
        full = "<" + layout
        return struct.unpack(full, self.take(struct.calcsize(full)))

    def string(self) -> str:
        return self.take(self.unpack("Q")[0]).decode()

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            inner, count = self.unpack("IQ")
            if inner in _PLAIN:
                return list(self.unpack(f"{count}{_PLAIN[inner]}"))
            return [self.value(inner) for _ in range(count)]
        return self.unpack(_PLAIN[kind])[0]
