"""A model as probes are pointed at it: which one, where its files lie, which forms it offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondol.core.types import ModelRole, Pair, TextRole
from ondol.models.convert import has_form
from ondol.models.library import ModelFiles
from ondol.models.loading import available_forms, reference_form
from ondol.models.manifest import read_manifest
from ondol.services.evaluation.texts import JudgedList
from ondol.services.probe.child import DEFAULT_SECONDS, Probe


@dataclass(frozen=True, slots=True)
class Subject:
    """A model under measurement.

    ``forms`` are what it can run as, its own default first; ``reference`` is what others are compared
    with.
    """

    model: str
    role: ModelRole
    models: Path
    forms: tuple[str, ...]
    reference: str
    languages: tuple[str, ...]
    query_prefix: str = ""
    document_prefix: str = ""

    @classmethod
    def of(cls, files: ModelFiles) -> Subject:
        """Return the subject of a model that is ready."""
        entry = files.entry
        return cls(
            model=entry.id,
            role=entry.role,
            models=files.folder.parent,
            forms=available_forms(entry),
            reference=reference_form(entry),
            languages=entry.languages,
            query_prefix=entry.query_prefix,
            document_prefix=entry.document_prefix,
        )

    def load(
        self,
        probe: Probe,
        *,
        form: str,
        threads: int,
        streams: int = 1,
        seconds: float = DEFAULT_SECONDS,
    ) -> dict[str, Any]:
        """Make ``probe`` load ``form``; returns what it says of it. Raises ``ProbeFailed``."""
        return probe.ask(
            "load",
            seconds=seconds,
            model=self.model,
            form=form,
            threads=threads,
            streams=streams,
            models=str(self.models),
        )

    def text_items(self, texts: Sequence[str], *, role: TextRole = "document") -> list[str]:
        """Return ``texts`` with the prefix of ``role``."""
        prefix = self.query_prefix if role == "query" else self.document_prefix
        return [f"{prefix}{text}" for text in texts]


def pair_items(lists: Sequence[JudgedList]) -> list[Pair]:
    """Return every (query, passage) of ``lists`` in order."""
    return [Pair(one.query, passage) for one in lists for passage in one.documents]


def is_made(files: ModelFiles, form: str) -> bool:
    """Whether loading ``form`` finds its files ready; making them would count as its memory."""
    manifest = read_manifest(files.folder)
    return manifest is not None and has_form(files.entry, files.folder, manifest, form=form)
