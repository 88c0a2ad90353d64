"""The file of the form ``native:int8``: weights packed as the C kernels read them.

Layout: 8 bytes ``ONDOLN01``, u64 length of the directory, the directory as JSON (sizes, how texts
are given to the model, and per array its dtype, shape and offset), then the arrays, each at a
multiple of 64 bytes. The file is memory-mapped and used in place. Knows the packing; the arithmetic
is ``native/encoder.c``'s.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from ondol.kernels.bert import BertShape, BertWeights, FloatArray, Q4Matrix, as_float
from ondol.kernels.calibration.calibration_statistics import Tokens, hidden_states, input_statistics
from ondol.kernels.kernel_error import KernelError
from ondol.kernels.rounding import round_weights, smoothing

_MAGIC = b"ONDOLN01"
_ALIGN = 64
"""A cache line, and one register of 512 bits."""

_LARGEST_OFFSET = 2**53
"""Stands for an offset while the directory's length is measured: no real one has more digits."""

_PANEL = 64
"""Output columns that lie together; see PANEL in the C file."""

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class TextSettings:
    """How texts are given to an embedder: what its model card says.

    ``tokenizer`` is a ``tokenizer.json`` beside the weights; ``pooling`` is the mean of the tokens'
    vectors, or the first token's; the prefixes are put before every query and document.
    """

    tokenizer: str = "tokenizer.json"
    pooling: Literal["mean", "cls"] = "mean"
    query_prefix: str = ""
    document_prefix: str = ""


@dataclass(frozen=True, slots=True)
class PackedWeights:
    """A mapped file: the sizes, and its arrays by name (read-only views of the mapping).

    ``texts`` is ``None`` where the file does not say how texts are given to the model.
    """

    shape: BertShape
    arrays: Mapping[str, Array]
    texts: TextSettings | None = None


def packable(shape: BertShape) -> bool:
    """Whether the kernels can run an encoder of these sizes."""
    head = shape.hidden // shape.heads
    return shape.hidden % _PANEL == 0 and shape.ffn % shape.hidden == 0 and head % 32 == 0


def write_packed(
    weights: BertWeights,
    items: Sequence[Tokens],
    path: Path,
    *,
    texts: TextSettings | None = None,
) -> None:
    """Quantise ``weights``, calibrated on ``items``, and write them to ``path``.

    Raises ``KernelError`` when the sizes do not suit the kernels, and ``ValueError`` when there is
    nothing to calibrate on.
    """
    shape = weights.shape
    if not packable(shape):
        raise KernelError(
            f"hidden {shape.hidden}, ffn {shape.ffn}, {shape.heads} heads do not suit the kernels",
            hint="hidden must be a multiple of 64, hidden / heads of 32, and ffn of hidden",
        )
    arrays = dict(_plain_arrays(weights))

    def pack(name: str, inputs: FloatArray) -> None:
        arrays.update(_packed(weights, name, inputs))

    hidden_states(weights, items, observe=pack)
    with path.open("wb") as out:
        _write(out, shape, arrays, texts)


def read_packed(path: Path) -> PackedWeights:
    """Map ``path``. Raises ``ValueError`` when it is no such file or is cut short."""
    with path.open("rb") as file:
        head = file.read(16)
        if head[:8] != _MAGIC:
            raise ValueError(f"{path.name} holds no packed weights")
        directory = json.loads(file.read(int.from_bytes(head[8:], "little")))
    mapped = np.memmap(path, np.uint8, mode="r")
    arrays: dict[str, Array] = {}
    for name, (dtype, shape, offset) in directory["arrays"].items():
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if offset + size > len(mapped):
            raise ValueError(f"{path.name} is cut short: {name} ends behind its end")
        arrays[name] = mapped[offset : offset + size].view(dtype).reshape(shape)
    texts = directory.get("texts")
    return PackedWeights(
        shape=BertShape(**directory["shape"]),
        arrays=arrays,
        texts=TextSettings(**texts) if texts else None,
    )


def _plain_arrays(weights: BertWeights) -> Iterator[tuple[str, Array]]:
    """All that is kept as it is: embeddings, norms, and a reranker's head."""
    yield from _embeddings(weights)
    for index in range(weights.shape.layers):
        for norm in (f"l{index}.aln", f"l{index}.oln"):
            yield f"{norm}.w", weights.vector(f"{norm}.w")
            yield f"{norm}.b", weights.vector(f"{norm}.b")
    if weights.shape.classifier:
        for name in ("head.d", "head.o"):
            yield f"{name}.w", as_float(weights.matrix(f"{name}.w"))
            yield f"{name}.b", weights.vector(f"{name}.b")


def _embeddings(weights: BertWeights) -> Iterator[tuple[str, Array]]:
    table = weights.matrix("emb.word")
    if isinstance(table, Q4Matrix):
        yield "words.packed", table.packed
        yield "words.scales", table.scales.astype(np.float16)
    else:
        yield "words", table.astype(np.float16)
    yield "positions", as_float(weights.matrix("emb.pos"))
    yield "types", as_float(weights.matrix("emb.type"))
    yield "norm.w", weights.vector("emb.ln.w")
    yield "norm.b", weights.vector("emb.ln.b")


def _packed(weights: BertWeights, name: str, inputs: FloatArray) -> Iterator[tuple[str, Array]]:
    """Round and pack the multiplication ``name`` for such ``inputs`` ``(tokens, in)``.

    Wide inputs come in runs of ``hidden`` channels, each with scales of its own; the first run's
    result has the bias.
    """
    matrix, bias = _matrix(weights, name)
    groups = matrix.shape[1] // weights.shape.hidden
    statistics = input_statistics(inputs, groups=groups)
    factors = smoothing(statistics.largest, matrix)
    yield f"{name}.factors", factors
    for group, columns in enumerate(np.split(np.arange(matrix.shape[1]), groups)):
        scaling = factors[columns]
        moments = statistics.moments[group] * np.outer(scaling, scaling)
        rounded = round_weights(matrix[:, columns] / scaling, moments)
        yield f"{name}.{group}.weights", _panels(rounded.values)
        yield f"{name}.{group}.scale", rounded.scales
        yield f"{name}.{group}.sum", rounded.values.sum(axis=1, dtype=np.int32).astype(np.float32)
        yield f"{name}.{group}.bias", bias if group == 0 else np.zeros_like(bias)


def _matrix(weights: BertWeights, name: str) -> tuple[FloatArray, FloatArray]:
    """Return the ``(out, in)`` weights and the bias; queries, keys and values are one matrix."""
    p, _, part = name.partition(".")
    if part != "qkv":
        return as_float(weights.matrix(f"{name}.w")), weights.vector(f"{name}.b")
    # Folded into the queries: attention's 1/sqrt(d), and log2 e, as the kernels take powers of 2.
    head = weights.shape.hidden // weights.shape.heads
    factors = {
        "q": np.float32(head**-0.5 * math.log2(math.e)),
        "k": np.float32(1),
        "v": np.float32(1),
    }
    return (
        np.concatenate([as_float(weights.matrix(f"{p}.{n}.w")) * f for n, f in factors.items()]),
        np.concatenate([weights.vector(f"{p}.{n}.b") * f for n, f in factors.items()]),
    )


def _panels(values: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return ``(out, in)`` as the kernels walk it: ``(out / 64, in / 4, 64, 4)``."""
    rows, columns = values.shape
    return values.reshape(rows // _PANEL, _PANEL, columns // 4, 4).transpose(0, 2, 1, 3)


def _write(
    out: BinaryIO, shape: BertShape, arrays: Mapping[str, Array], texts: TextSettings | None
) -> None:
    head = {"shape": asdict(shape), "texts": asdict(texts) if texts else None}

    def directory(offsets: Mapping[str, int]) -> bytes:
        entries = {
            name: (array.dtype.str, array.shape, offsets[name]) for name, array in arrays.items()
        }
        return json.dumps({**head, "arrays": entries}).encode()

    length = len(directory(dict.fromkeys(arrays, _LARGEST_OFFSET)))
    offsets: dict[str, int] = {}
    end = 16 + length
    for name, array in arrays.items():
        offsets[name] = end + -end % _ALIGN
        end = offsets[name] + array.nbytes
    out.write(_MAGIC + length.to_bytes(8, "little") + directory(offsets).ljust(length))
    for name, array in arrays.items():
        out.write(b"\0" * (offsets[name] - out.tell()))
        out.write(np.ascontiguousarray(array).tobytes())
