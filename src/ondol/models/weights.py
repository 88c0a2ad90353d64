"""Opens a model's fetched weights, whatever their format, as ``BertWeights``.

The one place that maps a catalogue format to its reader. Tensors are read when asked for.
"""

from __future__ import annotations

from pathlib import Path

from ondol.core.errors import ModelError
from ondol.models.bert import BertWeights
from ondol.models.catalogue import CatalogueEntry


def read_weights(entry: CatalogueEntry, folder: Path) -> BertWeights:
    """Return the encoder weights in ``folder``; 8-bit ONNX weights come back at full width.

    Raises ``ModelError`` when they are damaged, or are no BERT encoder.
    """
    path = folder / entry.weights.name
    if entry.format == "e5s1":
        from ondol.models.e5s1 import read_e5s1

        return read_e5s1(path)
    if entry.format == "safetensors":
        from ondol.models.safetensors import read_safetensors

        config = entry.file("config")
        return read_safetensors(path, config=folder / (config.name if config else "config.json"))
    if entry.format == "onnx":
        from ondol.models.onnx_weights import read_onnx_weights

        return read_onnx_weights(path)
    raise ModelError(
        f"{entry.id} has {entry.format} weights, which are no encoder's",
        hint="see `ondol models list --role embedder`",
    )
