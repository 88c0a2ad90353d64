"""``manifest.json`` of a model's folder: which files are there, their hashes, where they came from.

Written atomically and last, so a folder without it is not whole. Knows no network and no model.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

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
