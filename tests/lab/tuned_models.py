"""A tiny embedder in a models folder, as the library knows it, for tests of fine-tuning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.kernels.synthetic_weights import HIDDEN, POSITIONS, e5s1_bytes, random_tensors
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel

from ondol.models.catalogue import CatalogueEntry, FilePart, ModelFile, catalogue
from ondol.models.convert import ensure_form
from ondol.models.download import FetchedFile, hash_file
from ondol.models.library import ModelFiles, ModelLibrary
from ondol.models.manifest import Manifest, lock_path, write_manifest
from ondol.models.own_models import write_own_entry

WORDS = [
    "leave",
    "year",
    "days",
    "staff",
    "sick",
    "note",
    "doctor",
    "expenses",
    "train",
    "hotel",
    "receipt",
    "door",
    "key",
    "guest",
    "garden",
    "tax",
    "invoice",
    "client",
    "phone",
    "repair",
    "window",
    "lamp",
]


def tiny_model(root: Path, name: str = "tiny", *, seed: int = 7) -> ModelFiles:
    """Put a whole two-layer model into ``root/name`` and return its files; it reads ``WORDS``."""
    folder = root / name
    folder.mkdir(parents=True)
    vocabulary = {"[PAD]": 0, "[UNK]": 1, **{word: n for n, word in enumerate(WORDS, 2)}}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tiny.bin").write_bytes(e5s1_bytes(random_tensors(seed)))
    found = entry_of(folder, name)
    fetched = tuple(FetchedFile(f.name, f.bytes, f.sha256 or "", "test") for f in found.files)
    write_manifest(folder, Manifest(model=name, files=fetched))
    write_own_entry(folder, found, made={"base": "nothing"})
    ensure_form(found, folder, form="onnx:fp32", lock=lock_path(root, name))
    return ModelFiles(found, folder, folder / "tiny.bin", folder / "tokenizer.json", found.bytes)


def entry_of(folder: Path, name: str) -> CatalogueEntry:
    parts: tuple[tuple[FilePart, Path], ...] = (
        ("weights", folder / "tiny.bin"),
        ("tokenizer", folder / "tokenizer.json"),
    )
    files = tuple(
        ModelFile(path.name, part, path.stat().st_size, hash_file(path)) for part, path in parts
    )
    return replace(
        catalogue()["multilingual-e5-small"],
        id=name,
        files=files,
        dimensions=HIDDEN,
        max_tokens=POSITIONS,
        forms=("onnx:int8", "onnx:fp32"),
        trimmable=False,
        default=False,
        query_prefix="",
        document_prefix="",
    )


def library_of(root: Path) -> ModelLibrary:
    return ModelLibrary(root, offline=True)
