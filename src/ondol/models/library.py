"""The models folder: what is there, what is whole, and how the rest is fetched.

Layout: ``<root>/<model id>/`` holds whole files and ``manifest.json``; ``<root>/.partial/<id>/``
what a broken pull left; ``<root>/.locks/`` one lock per model. Thread-safe and safe between
processes. Offline, only folders of the user and the Hub's cache are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import NotFound
from ondol.core.events import ModelStateChanged, NullObserver, Observer
from ondol.core.types import ModelRole
from ondol.models.catalogue import CatalogueEntry, ModelFile, catalogue, entry
from ondol.models.convert import form_path, runs
from ondol.models.download import FetchedFile
from ondol.models.manifest import BuiltForm, Manifest, lock_path, locked, read_manifest
from ondol.models.own_models import own_entries, own_entry
from ondol.models.pulling import Pull, PullProgress, offline_missing
from ondol.models.sources import FileSource, FolderSource, HubCacheSource, HubSource, PypiSource

__all__ = ["ModelFiles", "ModelInfo", "ModelLibrary", "ModelState", "PullProgress"]

ModelState = Literal["absent", "partial", "ready"]


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of a model that is ready. ``model_path`` is what runs by default."""

    entry: CatalogueEntry
    folder: Path
    model_path: Path
    tokenizer_path: Path | None
    bytes: int

    @property
    def lock_path(self) -> Path:
        """The lock that whoever changes ``folder`` must hold."""
        return lock_path(self.folder.parent, self.entry.id)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """All that is known of a model here: the entry, its state, and the manifest's facts."""

    entry: CatalogueEntry
    state: ModelState
    folder: Path
    files: tuple[FetchedFile, ...]
    built: tuple[BuiltForm, ...]
    forms: tuple[str, ...]
    bytes: int


class ModelLibrary:
    """The models under ``root``; ``extra_sources`` are folders looked at before any download.

    ``models`` replaces the catalogue and the models made here; ``hub_endpoint`` and ``hub_cache`` replace the Hub library's
    own (a mirror, another cache).
    """

    def __init__(
        self,
        root: Path,
        *,
        offline: bool = False,
        extra_sources: Sequence[Path] = (),
        observer: Observer | None = None,
        clock: Clock | None = None,
        models: Mapping[str, CatalogueEntry] | None = None,
        hub_endpoint: str | None = None,
        hub_cache: Path | None = None,
    ) -> None:
        self._root = root
        self._offline = offline
        self._folders = tuple(extra_sources)
        self._observer = observer or NullObserver()
        self._clock = clock or SystemClock()
        self._models = models
        self._hub_endpoint = hub_endpoint
        self._hub_cache = hub_cache

    def entries(self) -> Mapping[str, CatalogueEntry]:
        """Return every model that is known here, by id: the catalogue's, then those made here."""
        if self._models is not None:
            return self._models
        return {**catalogue(), **own_entries(self._root)}

    def entry(self, model_id: str) -> CatalogueEntry:
        """Return one entry; raises ``NotFound`` that names the nearest id."""
        if self._models is None and model_id not in catalogue():
            own = own_entry(self._root, model_id)
            if own is not None:
                return own
        return entry(model_id, among=self.entries())

    def state(self, model_id: str) -> ModelState:
        """Return whether the model is whole here; sizes are compared, hashes only when pulling."""
        found = self.entry(model_id)
        folder = self._root / model_id
        if _is_whole(found, folder):
            return "ready"
        return "partial" if folder.exists() or self._partial(model_id).exists() else "absent"

    def ready(self, role: ModelRole) -> list[str]:
        """Return the ids of catalogue models of ``role`` that are ready here."""
        of_role = (model.id for model in self.entries().values() if model.role == role)
        return [model_id for model_id in of_role if self.state(model_id) == "ready"]

    def files(self, model_id: str) -> ModelFiles:
        """Return a ready model's files.

        Raises ``OfflineMissing`` (offline) or ``NotFound``, each naming the command that gets it.
        """
        found = self.entry(model_id)
        state = self.state(model_id)
        if state != "ready":
            message = f"the model {model_id} is {'not here' if state == 'absent' else 'not whole'}"
            if self._offline:
                raise offline_missing(model_id, message)
            raise NotFound(message, hint=f"ondol models pull {model_id}", param="model")
        folder = self._root / model_id
        tokenizer = found.file("tokenizer")
        return ModelFiles(
            entry=found,
            folder=folder,
            model_path=form_path(found, folder, form="auto"),
            tokenizer_path=folder / tokenizer.name if tokenizer else None,
            bytes=_bytes_in(folder),
        )

    def info(self, model_id: str) -> ModelInfo:
        """Return what is known of a model, ready or not."""
        found = self.entry(model_id)
        folder = self._root / model_id
        manifest = read_manifest(folder) or Manifest(model=model_id)
        return ModelInfo(
            entry=found,
            state=self.state(model_id),
            folder=folder,
            files=manifest.files,
            built=manifest.forms,
            forms=found.forms,
            bytes=_bytes_in(folder),
        )

    def pull(
        self,
        model_id: str,
        *,
        progress: Callable[[PullProgress], None] | None = None,
        force: bool = False,
    ) -> ModelFiles:
        """Fetch what is missing, check it, convert it, and return the files; idempotent.

        A second caller waits for the first and reuses its work. ``force`` fetches everything anew
        and keeps the old files until the new ones are whole. Raises ``DownloadFailed``,
        ``HashMismatch``, ``OfflineMissing`` or ``ModelError`` (conversion).
        """
        found = self.entry(model_id)
        started = self._clock.monotonic()
        with locked(lock_path(self._root, model_id)):
            if force or self.state(model_id) != "ready":
                self._pull(found, progress, force=force)
                seconds = self._clock.monotonic() - started
                self._observer.observe(
                    ModelStateChanged(model=model_id, state="pulled", seconds=seconds)
                )
        return self.files(model_id)

    def _pull(
        self,
        found: CatalogueEntry,
        progress: Callable[[PullProgress], None] | None,
        *,
        force: bool,
    ) -> None:
        Pull(
            found,
            folder=self._root / found.id,
            partial=self._partial(found.id),
            sources=self._sources(found.id),
            offline=self._offline,
            force=force,
            progress=progress,
        ).run()

    def _sources(self, model_id: str) -> list[FileSource]:
        local: list[FileSource] = [FolderSource(folder) for folder in self._folders]
        local.append(HubCacheSource(self._hub_cache))
        if self._offline:
            return local
        partial = self._partial(model_id)
        return [*local, HubSource(partial, endpoint=self._hub_endpoint), PypiSource(partial)]

    def _partial(self, model_id: str) -> Path:
        return self._root / ".partial" / model_id


def _is_whole(found: CatalogueEntry, folder: Path) -> bool:
    manifest = read_manifest(folder)
    if manifest is None or not runs(found, folder, manifest):
        return False
    return all(_is_here(folder, file, manifest) for file in found.files)


def _is_here(folder: Path, file: ModelFile, manifest: Manifest) -> bool:
    known = manifest.file(file.name)
    path = folder / file.name
    return (
        known is not None
        and file.sha256 in {None, known.sha256}
        and path.is_file()
        and path.stat().st_size == known.bytes
    )


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*") if path.is_file())
