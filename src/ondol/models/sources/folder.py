"""Model files in a folder of the user's: ``FOLDER/<model id>/<name>``.

Weights whose hash is known may also lie bare, as ``FOLDER/<name>``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ondol.models.catalogue import ModelFile
from ondol.models.sources.base import Report, read_chunks


class FolderSource:
    """Reads from one folder of the user's."""

    kind: Literal["local"] = "local"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def offers(self, model_id: str, file: ModelFile) -> bool:
        return self._path(model_id, file).is_file()

    def describe(self, model_id: str, file: ModelFile) -> str:
        return f"local:{self._path(model_id, file)}"

    def chunks(self, model_id: str, file: ModelFile, *, report: Report) -> Iterator[bytes]:
        return read_chunks(self._path(model_id, file), report=report)

    def _path(self, model_id: str, file: ModelFile) -> Path:
        nested = self._folder / model_id / file.name
        bare = self._folder / file.name
        known = file.part == "weights" and file.sha256 is not None
        return bare if known and not nested.is_file() else nested
