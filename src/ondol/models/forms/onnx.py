"""Forms on ONNX Runtime: built from the weights, or the file as it was shipped.

``onnx:fp32`` is the reference of every encoder. ``onnx:int8`` is built with per-token scales, except
for models that come as 8-bit ONNX: theirs is the shipped file, untouched.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ondol.backends.base import Encoder
from ondol.core.errors import ModelError
from ondol.kernels.bert import BertShape
from ondol.kernels.processor import weight_levels
from ondol.models.catalogue import CatalogueEntry
from ondol.models.form import Form
from ondol.models.forms.base import FormSetup, FormSource, Lack

_LARGEST_GRAPH = 2_000_000_000
"""Protobuf cannot hold more than 2 GiB in one file."""


class OnnxForms:
    """``onnx:int8``, ``onnx:fp32``, and ``onnx:int8+trimmed`` where the vocabulary can be cut."""

    runtime = "onnx"
    version = 1

    def makes(self, entry: CatalogueEntry) -> tuple[str, ...]:
        trimmed = ("onnx:int8+trimmed",) if entry.trimmable else ()
        return ("onnx:int8", "onnx:fp32", *trimmed)

    def lacks(self, form: Form) -> Lack | None:
        return None

    def files(self, source: FormSource, form: Form) -> tuple[Path, ...]:
        if _as_shipped(source.entry, form):
            return (source.folder / source.entry.weights.name,)
        trimmed = "-trimmed" if form.trimmed else ""
        return source.files_of(form, f"model.{form.precision}{trimmed}.onnx")

    def build(self, source: FormSource, form: Form, targets: tuple[Path, ...]) -> None:
        """Write the graph with its weights to the first target."""
        from ondol.kernels.bert_graph import build_encoder

        entry, weights = source.entry, source.weights_of(form, targets)
        precision: Literal["fp32", "int8"] = "fp32" if form.precision == "fp32" else "int8"
        size = _graph_bytes(weights.shape, packed=entry.format == "e5s1", precision=precision)
        if size > _LARGEST_GRAPH:
            raise ModelError(
                f"{entry.id} as {form} needs {size:,} bytes; one ONNX file holds 2 GiB",
                hint="use models.form = 'onnx:int8'",
            )
        graph = build_encoder(
            weights,
            precision=precision,
            levels=weight_levels(),
            pooling="cls" if entry.pooling == "cls" else "mean",
        )
        targets[0].write_bytes(graph.SerializeToString(deterministic=True))

    def load(self, source: FormSource, form: Form, setup: FormSetup) -> Encoder:
        from ondol.backends.onnx_encoder import OnnxEncoder

        return OnnxEncoder(
            self.files(source, form)[0],
            source.tokenizer_of(form),
            spec=setup.spec,
            threads=setup.threads,
            pooling=source.entry.pooling,
        )


def _as_shipped(entry: CatalogueEntry, form: Form) -> bool:
    return entry.format == "onnx" and form.precision == "int8" and not form.trimmed


def _graph_bytes(shape: BertShape, *, packed: bool, precision: Literal["fp32", "int8"]) -> int:
    table = shape.vocab * shape.hidden
    linear = shape.layers * (4 * shape.hidden**2 + 2 * shape.hidden * shape.ffn)
    per_word = 0.625 if packed else (4 if precision == "fp32" else 2)
    return int(table * per_word) + linear * (4 if precision == "fp32" else 1)
