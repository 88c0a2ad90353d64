"""Makes the forms a model can run in out of the weights that were fetched.

Owns where a form's file lies and the conversion of ``e5s1`` and ``safetensors`` weights to ONNX;
``onnx`` and ``gguf`` weights run as they are. A form is written to a part file and renamed, and
recorded in the manifest; a failed conversion leaves the download as it was.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Literal

from ondol.core.errors import ModelError
from ondol.models.bert import BertShape, BertWeights
from ondol.models.catalogue import CatalogueEntry
from ondol.models.e5s1 import read_e5s1
from ondol.models.lock import locked
from ondol.models.manifest import BuiltForm, Manifest, read_manifest, write_manifest
from ondol.models.quantize import weight_levels
from ondol.models.safetensors import read_safetensors

_LARGEST_GRAPH = 2_000_000_000
"""Protobuf cannot hold more than 2 GiB in one file."""


def resolve_form(entry: CatalogueEntry, form: str) -> str:
    """Return the form's full name; ``auto`` is the entry's first. Raises ``ModelError``."""
    if form == "auto":
        return entry.forms[0]
    if form not in entry.forms:
        raise ModelError(
            f"{entry.id} cannot run as {form!r}; it can run as {', '.join(entry.forms)}",
            hint="set models.form to 'auto' or to one of these",
            param="models.form",
        )
    return form


def converts(entry: CatalogueEntry) -> bool:
    """Whether the model's weights must be converted before they can run."""
    return entry.format in {"e5s1", "safetensors"}


def form_path(entry: CatalogueEntry, folder: Path, *, form: str) -> Path:
    """Return where the file of ``form`` lies (or will lie) in the model's folder."""
    if not converts(entry):
        return folder / entry.weights.name
    return folder / f"model.{resolve_form(entry, form).partition(':')[2]}.onnx"


def has_form(entry: CatalogueEntry, folder: Path, manifest: Manifest, *, form: str) -> bool:
    """Whether ``form`` is there, as large as it was when it was made."""
    if not converts(entry):
        return True
    built = manifest.form(resolve_form(entry, form))
    path = form_path(entry, folder, form=form)
    return built is not None and path.is_file() and path.stat().st_size == built.bytes


def ensure_form(entry: CatalogueEntry, folder: Path, *, form: str, lock: Path) -> Path:
    """Return the file of ``form``, converting it first when it is not there.

    A form that is there needs no lock, so a read-only models folder serves.

    Raises ``ModelError`` when the weights are damaged or the form cannot be made.
    """
    manifest = read_manifest(folder)
    if manifest is not None and has_form(entry, folder, manifest, form=form):
        return form_path(entry, folder, form=form)
    with locked(lock):
        manifest = read_manifest(folder)
        if manifest is None:
            raise ModelError(
                f"{folder} has no manifest: {entry.id} is not whole",
                hint=f"ondol models pull {entry.id}",
            )
        if not has_form(entry, folder, manifest, form=form):
            write_manifest(folder, manifest.with_form(build_form(entry, folder, form=form)))
    return form_path(entry, folder, form=form)


def build_form(entry: CatalogueEntry, folder: Path, *, form: str) -> BuiltForm:
    """Convert the weights in ``folder``; the caller holds the model's lock."""
    started = time.perf_counter()
    full = resolve_form(entry, form)
    target = form_path(entry, folder, form=full)
    try:
        data = _converted(entry, folder, precision="fp32" if full == "onnx:fp32" else "int8")
        _write(data, target)
    except (OSError, ValueError, MemoryError) as error:
        raise ModelError(
            f"{entry.id} could not be converted to {full}: {error or type(error).__name__}",
            hint="the download is kept; free memory or disk and run "
            f"`ondol models pull {entry.id}` again",
        ) from error
    return BuiltForm(
        form=full,
        name=target.name,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        seconds=round(time.perf_counter() - started, 3),
    )


def _converted(entry: CatalogueEntry, folder: Path, *, precision: Literal["fp32", "int8"]) -> bytes:
    from ondol.models.bert_graph import build_encoder

    weights = _weights(entry, folder)
    size = _graph_bytes(weights.shape, packed=entry.format == "e5s1", precision=precision)
    if size > _LARGEST_GRAPH:
        raise ModelError(
            f"{entry.id} as onnx:{precision} needs {size:,} bytes; one ONNX file holds 2 GiB",
            hint="use models.form = 'onnx:int8'",
        )
    pooling: Literal["mean", "cls"] = "cls" if entry.pooling == "cls" else "mean"
    graph = build_encoder(weights, precision=precision, levels=weight_levels(), pooling=pooling)
    data: bytes = graph.SerializeToString(deterministic=True)
    return data


def _weights(entry: CatalogueEntry, folder: Path) -> BertWeights:
    path = folder / entry.weights.name
    if entry.format == "e5s1":
        return read_e5s1(path)
    config = entry.file("config")
    return read_safetensors(path, config=folder / (config.name if config else "config.json"))


def _graph_bytes(shape: BertShape, *, packed: bool, precision: Literal["fp32", "int8"]) -> int:
    table = shape.vocab * shape.hidden
    linear = shape.layers * (4 * shape.hidden**2 + 2 * shape.hidden * shape.ffn)
    per_word = 0.625 if packed else (4 if precision == "fp32" else 2)
    return int(table * per_word) + linear * (4 if precision == "fp32" else 1)


def _write(data: bytes, target: Path) -> None:
    part = target.with_name(f"{target.name}.part")
    try:
        with part.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
