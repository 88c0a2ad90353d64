"""The model that came of a run: first a folder of its own, then, once it has passed, one of the library.

A candidate is whole (weights, tokenizer, manifest), so that it is loaded and gets its forms as any
model does, but no settings can name it before ``adopt``.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ondol.kernels.bert import FloatArray
from ondol.lab.finetune.weights_file import cut_layers, write_weights
from ondol.models.catalogue import CatalogueEntry, FilePart, ModelFile
from ondol.models.download import FetchedFile, hash_file
from ondol.models.library import ModelFiles
from ondol.models.manifest import Manifest, lock_path, locked, read_weights, write_manifest
from ondol.models.own_models import check_new_id, write_own_entry


def make_candidate(
    base: ModelFiles,
    learned: Mapping[str, FloatArray],
    *,
    name: str,
    root: Path,
    digest: str,
    keep: int = 0,
) -> CatalogueEntry:
    """Write the tuned model into ``root/name``, anew, and return its entry.

    ``digest`` names what it learned from; ``keep`` is how many of the base's layers it has (0: all).
    With a head among what was learned it is a reranker. Raises ``ModelError``, or ``OSError`` where
    the disk is full.
    """
    folder = root / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    weights = cut_layers(read_weights(base.entry, base.folder), keep)
    written = write_weights(base.entry, base.folder, weights, learned, target=folder)
    if base.tokenizer_path is not None:
        written["tokenizer"] = folder / "tokenizer.json"
        shutil.copyfile(base.tokenizer_path, written["tokenizer"])
    files = tuple(_file(part, path) for part, path in written.items())
    fetched = tuple(
        FetchedFile(one.name, one.bytes, one.sha256 or "", f"tuned from {base.entry.id}")
        for one in files
    )
    write_manifest(folder, Manifest(model=name, files=fetched))
    entry = _reranking(base.entry) if "head.o.w" in learned else base.entry
    return replace(
        entry,
        id=name,
        title=f"{entry.title}, fine-tuned here",
        attribution=f"{entry.attribution.rstrip('.')}. Fine-tuned here.",
        upstream=f"{entry.upstream}#{digest}",
        format="e5s1" if "config" not in written else "safetensors",
        files=files,
        default=False,
    )


def candidate_files(entry: CatalogueEntry, root: Path) -> ModelFiles:
    """Return the files of a candidate in ``root``; its forms have not been made yet."""
    folder = root / entry.id
    tokenizer = entry.file("tokenizer")
    return ModelFiles(
        entry=entry,
        folder=folder,
        model_path=folder / entry.weights.name,
        tokenizer_path=folder / tokenizer.name if tokenizer else None,
        bytes=entry.bytes,
    )


def adopt(entry: CatalogueEntry, folder: Path, *, root: Path, made: Mapping[str, Any]) -> Path:
    """Move the candidate in ``folder`` into the library at ``root`` under its id; return its folder.

    Nothing of that name may be there. Raises ``Conflict`` where something came meanwhile.
    """
    with locked(lock_path(root, entry.id)):
        check_new_id(root, entry.id)
        write_own_entry(folder, entry, made=made)
        target = root / entry.id
        try:
            os.replace(folder, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            partial = root / ".partial" / entry.id
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(folder, partial)
            os.replace(partial, target)
            shutil.rmtree(folder)
    return target


def _reranking(entry: CatalogueEntry) -> CatalogueEntry:
    return replace(
        entry,
        role="reranker",
        pooling="none",
        dimensions=None,
        query_prefix="",
        document_prefix="",
    )


def _file(part: FilePart, path: Path) -> ModelFile:
    return ModelFile(path.name, part, path.stat().st_size, hash_file(path))
