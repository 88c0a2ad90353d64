"""What steps may use: the services of the process, the classifiers, and one clock.

Steps reach models and the store only through here; a service that is not there yet says so itself
(``NotReady``). Owns the loaded classifiers and lexicons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ondol.core.clock import Clock, SystemClock
from ondol.core.errors import OndolError
from ondol.core.settings.operation_sections import TaskSettings
from ondol.core.types import FloatMatrix
from ondol.packs.reviews.aspect_lexicon import AspectLexicon
from ondol.runtime.encoders.embedding import EmbeddingService
from ondol.runtime.generation.chat import ChatService
from ondol.search.retrieval import RetrievalService
from ondol.store.documents import DocumentStore
from ondol.tasks.classifier import Classifier, load_classifier
from ondol.tasks.declaration import Task
from ondol.tasks.task_run import TaskRun

_AT_ONCE = 256


class Services(Protocol):
    """The services of a process; a container has them."""

    @property
    def embedding(self) -> EmbeddingService: ...
    @property
    def retrieval(self) -> RetrievalService: ...
    @property
    def chat(self) -> ChatService: ...
    @property
    def store(self) -> DocumentStore: ...


class StepContext:
    """Hands steps what they need; ``home`` may hold classifiers of the user's own."""

    def __init__(
        self,
        services: Services,
        *,
        home: Path,
        settings: TaskSettings | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.services = services
        self.settings = settings or TaskSettings()
        self.clock = clock or SystemClock()
        self._home = home
        self._classifiers: dict[Path, Classifier] = {}
        self._lexicons: dict[tuple[Path, str], AspectLexicon] = {}

    async def vectors(self, texts: Sequence[str]) -> tuple[FloatMatrix, int]:
        """Return unit vectors (texts, dimensions) of stored-text role, and how many texts had none.

        What was embedded before comes from the cache. A text that cannot be embedded is zeros.
        """
        embedding = self.services.embedding
        rows = np.zeros((len(texts), embedding.dimensions), dtype=np.float32)
        failed = 0
        for start in range(0, len(texts), _AT_ONCE):
            part = texts[start : start + _AT_ONCE]
            found = await embedding.embed_each(part, role="document", lane=None)
            for place, value in enumerate(found, start=start):
                if isinstance(value, OndolError):
                    failed += 1
                else:
                    rows[place] = value
        return rows, failed

    def classifier(self, task: Task, name: str, language: str) -> Classifier:
        """Return the classifier ``name`` of a pack; a user's own of the same name comes first.

        Raises ``NotFound`` where neither is there.
        """
        relative = name.replace("{language}", language)
        own = self.own_classifier(task.pack, relative)
        path = own if own.is_file() else task.folder / relative
        if path not in self._classifiers:
            self._classifiers[path] = load_classifier(path)
        return self._classifiers[path]

    def own_classifier(self, pack: str, relative: str) -> Path:
        """Return where a user's own classifier in place of a pack's lies."""
        return self._home / "classifiers" / pack / Path(relative).name

    def forget_classifiers(self) -> None:
        """Read classifiers anew at their next use: after training."""
        self._classifiers.clear()

    def lexicon(self, task: Task, name: str) -> AspectLexicon:
        """Return a lexicon of the task's pack."""
        key = (task.folder, name)
        if key not in self._lexicons:
            table: Any = task.lexicons[name]
            self._lexicons[key] = AspectLexicon(table)
        return self._lexicons[key]

    async def with_vectors(self, run: TaskRun) -> tuple[TaskRun, FloatMatrix]:
        """Return the run with its entries' vectors, made now unless they were there."""
        if run.vectors is not None:
            return run, run.vectors
        before = self.clock.monotonic()
        rows, failed = await self.vectors([entry.text for entry in run.entries])
        spent = (self.clock.monotonic() - before) * 1e3
        run = replace(run, vectors=rows, timings={**run.timings, "embed_ms": spent})
        return (run.warned(f"{failed} texts could not be embedded") if failed else run), rows
