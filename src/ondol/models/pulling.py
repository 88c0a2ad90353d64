"""One pull of one model: fetch what is missing, check it, convert it, record it.

Runs under the model's lock. Each file is recorded in the manifest as soon as it is whole, so that
a killed pull repeats only what it had not finished. Decides nothing about where models lie.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ondol.core.errors import DownloadFailed, OfflineMissing
from ondol.core.private_files import private_folder
from ondol.models.catalogue import CatalogueEntry, ModelFile
from ondol.models.convert import build_form, has_form
from ondol.models.download import FetchedFile, fetch_file, hash_file
from ondol.models.manifest import Manifest, read_manifest, write_manifest
from ondol.models.sources import FileSource


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a pull is, in bytes of the model's files."""

    model_id: str
    phase: Literal["download", "convert"]
    file: str
    done: int
    total: int


class Pull:
    """Completes ``folder``; ``partial`` keeps what sources had fetched when a pull broke off."""

    def __init__(
        self,
        entry: CatalogueEntry,
        *,
        folder: Path,
        partial: Path,
        sources: Sequence[FileSource],
        offline: bool,
        force: bool,
        progress: Callable[[PullProgress], None] | None,
    ) -> None:
        self._entry = entry
        self._folder = folder
        self._partial = partial
        self._sources = sources
        self._offline = offline
        self._force = force
        self._progress = progress
        self._known = read_manifest(folder) or Manifest(model=entry.id)

    def run(self) -> None:
        """Fetch and convert; see ``ModelLibrary.pull`` for the errors."""
        if self._force:
            shutil.rmtree(self._partial, ignore_errors=True)
        missing = {file.name for file in self._entry.files if not self._is_whole(file)}
        self._require_space(sum(file.bytes for file in self._entry.files if file.name in missing))
        private_folder(self._folder)
        manifest = replace(self._known, forms=() if missing else self._known.forms)
        before = 0
        for file in self._entry.files:
            fetched = self._fetch(file, before) if file.name in missing else self._recorded(file)
            others = tuple(known for known in manifest.files if known.name != file.name)
            manifest = replace(manifest, files=(*others, fetched))
            write_manifest(self._folder, manifest)
            before += file.bytes
            self._report("download", file.name, before)
        self._convert(manifest)
        shutil.rmtree(self._partial, ignore_errors=True)

    def _convert(self, manifest: Manifest) -> None:
        entry = self._entry
        if has_form(entry, self._folder, manifest, form="auto"):
            return
        self._report("convert", entry.forms[0], entry.bytes)
        built = build_form(entry, self._folder, form="auto")
        write_manifest(self._folder, manifest.with_form(built))

    def _fetch(self, file: ModelFile, before: int) -> FetchedFile:
        known = self._known.file(file.name)
        if file.sha256 is None and known is not None:
            file = replace(file, sha256=known.sha256, bytes=known.bytes)
        if self._offline and not any(s.offers(self._entry.id, file) for s in self._sources):
            raise offline_missing(
                self._entry.id, f"{file.name} of {self._entry.id} is not on this machine"
            )
        return fetch_file(
            self._entry.id,
            file,
            folder=self._folder,
            partial=self._partial,
            sources=self._sources,
            report=lambda done: self._report("download", file.name, before + min(done, file.bytes)),
        )

    def _is_whole(self, file: ModelFile) -> bool:
        """Whether the file is here and right: by the manifest's size, else by its hash."""
        path = self._folder / file.name
        if self._force or not path.is_file():
            return False
        known = self._known.file(file.name)
        if known is not None and file.sha256 in {None, known.sha256}:
            return path.stat().st_size == known.bytes
        return file.sha256 is not None and hash_file(path) == file.sha256

    def _recorded(self, file: ModelFile) -> FetchedFile:
        known = self._known.file(file.name)
        if known is not None and file.sha256 in {None, known.sha256}:
            return known
        path = self._folder / file.name
        return FetchedFile(
            name=file.name,
            bytes=path.stat().st_size,
            sha256=file.sha256 or hash_file(path),
            source="found here",
        )

    def _require_space(self, needed: int) -> None:
        root = self._folder.parent
        private_folder(root)
        free = shutil.disk_usage(root).free
        if free < needed:
            raise DownloadFailed(
                f"{self._entry.id} needs {needed:,} bytes more; {root} has {free:,} free",
                hint="free some space, or move ONDOL_HOME to a larger disk",
                code="disk_full",
            )

    def _report(self, phase: Literal["download", "convert"], file: str, done: int) -> None:
        if self._progress is not None:
            self._progress(
                PullProgress(
                    model_id=self._entry.id,
                    phase=phase,
                    file=file,
                    done=done,
                    total=self._entry.bytes,
                )
            )


def offline_missing(model_id: str, message: str) -> OfflineMissing:
    """Return the error for a model that is not here while offline."""
    return OfflineMissing(
        f"{message}, and Ondol is offline",
        hint=f"run `ondol models pull {model_id}` once with the network, or name a folder "
        "that has it in models.sources",
        param="model",
    )
