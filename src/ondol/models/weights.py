"""Opens a model's fetched weights, whatever their format, as ``BertWeights``.

The one place that maps a catalogue format to its reader, and the readers' errors to ``ModelError``.
Tensors are read when asked for.
"""

from __future__ import annotations

from pathlib import Path

from ondol.backends.failures import as_model_error
from ondol.core.errors import ModelError
from ondol.kernels.bert import BertWeights, FloatArray, Matrix
from ondol.models.catalogue import CatalogueEntry


def read_weights(entry: CatalogueEntry, folder: Path) -> BertWeights:
    """Return the encoder weights in ``folder``; 8-bit ONNX weights come back at full width.

    Raises ``ModelError``, now or when a tensor is read, where they are damaged or no BERT encoder's.
    """
    with as_model_error():
        weights = _open(entry, folder)

    def matrix(name: str) -> Matrix:
        with as_model_error():
            return weights.matrix(name)

    def vector(name: str) -> FloatArray:
        with as_model_error():
            return weights.vector(name)

    return BertWeights(shape=weights.shape, matrix=matrix, vector=vector)


def _open(entry: CatalogueEntry, folder: Path) -> BertWeights:
    path = folder / entry.weights.name
    if entry.format == "e5s1":
        from ondol.kernels.e5s1 import read_e5s1

        return read_e5s1(path)
    if entry.format == "safetensors":
        from ondol.kernels.safetensors import read_safetensors

        config = entry.file("config")
        return read_safetensors(path, config=folder / (config.name if config else "config.json"))
    if entry.format == "onnx":
        from ondol.kernels.onnx_weights import read_onnx_weights

        return read_onnx_weights(path)
    raise ModelError(
        f"{entry.id} has {entry.format} weights, which are no encoder's",
        hint="see `ondol models list --role embedder`",
    )
