"""Writes learned weights: the base's file with the learned tensors in place of its own.

An E5S1 base stays E5S1, so that its 4-bit word table is kept to the bit and costs no more when it
runs; any other encoder becomes ``model.safetensors`` with ``config.json``. Learned tensors are float32;
forms are made of the file as of any other. Knows no torch.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ondol.backends.protocols import as_model_error
from ondol.core.errors import InvalidInput, ModelError
from ondol.kernels.bert import BertWeights, FloatArray, Matrix, as_float, expected_shape
from ondol.kernels.e5s1 import StoredTensor, read_layout
from ondol.kernels.safetensors import native_name
from ondol.models.catalogue import CatalogueEntry, FilePart

_MATRICES = ("q", "k", "v", "ao", "fi", "fo")
_BLOCK = 1 << 22

Learned = Mapping[str, FloatArray]
Writer = Callable[[BinaryIO], None]


def with_learned(weights: BertWeights, learned: Learned) -> BertWeights:
    """Return a view of ``weights`` in which the tensors of ``learned`` stand for their own."""

    def matrix(name: str) -> Matrix:
        return learned[name] if name in learned else weights.matrix(name)

    def vector(name: str) -> FloatArray:
        return learned[name] if name in learned else weights.vector(name)

    head = "head.o.w" in learned or weights.shape.classifier
    return BertWeights(replace(weights.shape, classifier=head), matrix, vector)


def cut_layers(weights: BertWeights, keep: int) -> BertWeights:
    """Return a view of ``weights`` with only the first ``keep`` layers; 0 keeps all."""
    if not 0 <= keep <= weights.shape.layers:
        raise InvalidInput(
            f"{keep} layers cannot be kept of {weights.shape.layers}", hint="keep fewer"
        )
    return replace(weights, shape=replace(weights.shape, layers=keep or weights.shape.layers))


def write_weights(
    base: CatalogueEntry, folder: Path, weights: BertWeights, learned: Learned, *, target: Path
) -> dict[FilePart, Path]:
    """Write the tuned model of ``base`` (whose files lie in ``folder``) into ``target``.

    Returns the files by their part (``weights``, ``config``). Raises ``ModelError`` where a learned
    tensor is none of the base's or is not finite, and ``OSError`` where the disk is full.
    """
    tuned = with_learned(weights, learned)
    for name, value in learned.items():
        if value.shape != expected_shape(name, tuned.shape) or not np.isfinite(value).all():
            raise ModelError(
                f"the learned tensor {name} has shape {list(value.shape)} or is not finite",
                hint="lower the learning rate and train again",
            )
    if base.format == "e5s1" and not tuned.shape.classifier:
        path = target / base.weights.name
        source = folder / base.weights.name
        _replaced(path, lambda out: _write_e5s1(out, source, learned))
        return {"weights": path}
    path, config = target / "model.safetensors", target / "config.json"
    _replaced(path, lambda out: _write_safetensors(out, tuned))
    _replaced(config, lambda out: _write_bytes(out, _config(tuned)))
    return {"weights": path, "config": config}


def tensor_names(weights: BertWeights) -> Iterator[str]:
    """Yield every tensor of the encoder by canonical name."""
    yield from ("emb.word", "emb.pos", "emb.type", "emb.ln.w", "emb.ln.b")
    for layer in range(weights.shape.layers):
        for part in (*_MATRICES, "aln", "oln"):
            yield f"l{layer}.{part}.w"
            yield f"l{layer}.{part}.b"
    if weights.shape.classifier:
        yield from ("head.d.w", "head.d.b", "head.o.w", "head.o.b")


def _write_e5s1(out: BinaryIO, source: Path, learned: Learned) -> None:
    with as_model_error():
        layout = read_layout(source)
    sizes = {
        name: 4 * tensor.elements if name in learned else tensor.size
        for name, tensor in layout.tensors.items()
    }
    offset = layout.directory + 4 + sum(2 + len(name.encode()) + 21 for name in sizes)
    with source.open("rb") as file:
        out.write(file.read(layout.directory))
        out.write(struct.pack("<i", len(sizes)))
        for name, tensor in layout.tensors.items():
            raw = name.encode()
            code = 0 if name in learned else tensor.code
            out.write(struct.pack("<H", len(raw)) + raw)
            out.write(struct.pack("<BIQQ", code, tensor.elements, offset, sizes[name]))
            offset += sizes[name]
        for name, tensor in layout.tensors.items():
            if name in learned:
                out.write(np.ascontiguousarray(learned[name], "<f4").tobytes())
            else:
                _copy(file, out, tensor)


def _copy(file: BinaryIO, out: BinaryIO, tensor: StoredTensor) -> None:
    file.seek(tensor.offset)
    left = tensor.size
    while left:
        block = file.read(min(left, _BLOCK))
        if not block:
            raise ModelError(
                "the base's weights became shorter while they were copied",
                hint="pull the base model again",
            )
        out.write(block)
        left -= len(block)


def _write_safetensors(out: BinaryIO, weights: BertWeights) -> None:
    """Word table as float16 (what forms keep of it), the rest as float32."""
    directory, offset = {}, 0
    for name in tensor_names(weights):
        shape = expected_shape(name, weights.shape)
        dtype, width = ("F16", 2) if name == "emb.word" else ("F32", 4)
        size = width * math.prod(shape)
        directory[native_name(name)] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    head = json.dumps(directory).encode()
    head += b" " * (-len(head) % 8)
    out.write(struct.pack("<Q", len(head)) + head)
    for name in tensor_names(weights):
        is_matrix = len(expected_shape(name, weights.shape)) == 2
        values = as_float(weights.matrix(name)) if is_matrix else weights.vector(name)
        stored = np.float16 if name == "emb.word" else np.float32
        out.write(np.ascontiguousarray(values, stored).tobytes())


def _config(weights: BertWeights) -> bytes:
    shape = weights.shape
    return json.dumps(
        {
            "model_type": "bert",
            "hidden_act": "gelu",
            "hidden_size": shape.hidden,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "intermediate_size": shape.ffn,
            "vocab_size": shape.vocab,
            "max_position_embeddings": shape.positions,
            "type_vocab_size": shape.types,
            "layer_norm_eps": shape.eps,
        },
        indent=2,
    ).encode()


def _write_bytes(out: BinaryIO, data: bytes) -> None:
    out.write(data)


def _replaced(path: Path, write: Writer) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as out:
            write(out)
            out.flush()
            os.fsync(out.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
