"""``manifest.json`` of a model's folder: which files are there, their hashes, where they came from.

Written atomically and last, so a folder without it is not whole. Knows no network and no model.

One process at a time may change a model's folder.

An advisory ``flock`` on a file of its own: the kernel drops it when the holder ends, however it
ends, so a killed pull never locks out the next.

Opens a model's fetched weights, whatever their format, as ``BertWeights``.

The one place that maps a catalogue format to its reader, and the readers' errors to ``ModelError``.
Tensors are read when asked for.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ondol.backends.protocols import as_model_error
from ondol.core.errors import ModelError
from ondol.core.private_files import private_file
from ondol.kernels.bert import BertWeights, FloatArray, Matrix
from ondol.models.catalogue import CatalogueEntry
from ondol.models.download import FetchedFile

NAME = "manifest.json"


@dataclass(frozen=True, slots=True)
class BuiltForm:
    """A form that was converted here: its file, size and SHA-256, and how long it took.

    ``version`` is its maker's at the time.
    """

    form: str
    name: str
    bytes: int
    sha256: str
    seconds: float
    version: int = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is known of a model's folder."""

    model: str
    files: tuple[FetchedFile, ...] = ()
    forms: tuple[BuiltForm, ...] = field(default=())

    def file(self, name: str) -> FetchedFile | None:
        return next((file for file in self.files if file.name == name), None)

    def form(self, form: str) -> BuiltForm | None:
        return next((built for built in self.forms if built.form == form), None)

    def with_form(self, built: BuiltForm) -> Manifest:
        """Return this manifest with ``built`` in place of an older one of its name."""
        others = tuple(other for other in self.forms if other.form != built.form)
        return Manifest(model=self.model, files=self.files, forms=(*others, built))


def read_manifest(folder: Path) -> Manifest | None:
    """Return the folder's manifest, or ``None`` where there is none that can be read."""
    try:
        data = json.loads((folder / NAME).read_text("utf-8"))
        return Manifest(
            model=str(data["model"]),
            files=tuple(FetchedFile(**file) for file in data["files"]),
            forms=tuple(BuiltForm(**form) for form in data["forms"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the folder's manifest in one step."""
    part = folder / f"{NAME}.part"
    with part.open("w", encoding="utf-8") as out:
        json.dump(asdict(manifest), out, indent=2)
        out.flush()
        os.fsync(out.fileno())
    os.replace(part, folder / NAME)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock ``path``; waits for as long as another process or thread holds it."""
    private_file(path)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def lock_path(root: Path, model_id: str) -> Path:
    """Return the lock file of a model in the models folder ``root``."""
    return root / ".locks" / f"{model_id}.lock"


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
