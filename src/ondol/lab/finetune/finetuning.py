"""One fine-tuning run: what to learn from, learning it, the exam, and the place in the library.

Owns ``<home>/finetuning/<name>/``: the material, the checkpoint, the candidate. All of it goes when the
model is adopted; a run that was stopped goes on from there when it is asked for again. Training
itself is ``models.finetuning``'s.

A collection as it would be under another embedder: its vectors replaced, all else as it is.

Held in memory and gone afterwards; the store itself is not changed. Keywords, names and settings of
the collection are the very ones that search uses, so that two embedders are compared and nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ondol.app.components import Parts
from ondol.app.container import Container
from ondol.core.clock import Clock
from ondol.core.errors import InvalidInput, OndolError
from ondol.core.settings import Settings
from ondol.core.types import FloatMatrix, OnProgress, Pair
from ondol.lab.evaluate.datasets import Query
from ondol.lab.finetune.candidate import adopt, candidate_files, make_candidate
from ondol.lab.finetune.embedder_training import (
    OnTraining,
    TrainedWeights,
    check_trainable,
    train_embedder,
)
from ondol.lab.finetune.exam import ExamVerdict, examine, modes_of
from ondol.lab.finetune.faithful import Faithful, faithful_forms
from ondol.lab.finetune.recipe import Recipe
from ondol.lab.finetune.training_pairs import (
    MadePair,
    MaterialMaker,
    Mining,
    Split,
    TextPiece,
    TrainingMaterial,
    apart,
    digest_of,
    in_share,
    made_pairs,
    pieces_of,
    read_material,
    split,
    write_material,
)
from ondol.models.catalogue import CatalogueEntry
from ondol.models.library import ModelLibrary
from ondol.models.own_models import check_new_id
from ondol.models.profile import fingerprint_of
from ondol.runtime.backend_factory import BackendFactory
from ondol.runtime.encoders.embedding import EmbeddingService
from ondol.store.documents import DocumentStore
from ondol.store.records import Collection

_AT_ONCE = 128


class RevectoredStore:
    """``store`` with one collection's chunks ``ids`` at other unit ``vectors`` ``(n, d)``."""

    def __init__(
        self,
        store: DocumentStore,
        collection: str,
        *,
        embedder: str,
        ids: Sequence[int],
        vectors: FloatMatrix,
    ) -> None:
        self._store = store
        self._name = collection
        self._embedder = embedder
        self._ids = np.asarray(ids, dtype=np.int64)
        self._vectors = vectors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def collection(self, name: str) -> Collection:
        """Return the collection as one of the other embedder's."""
        found = self._store.collection(name)
        return replace(found, embedder=self._embedder, dimensions=self._vectors.shape[1])

    def search_vectors(
        self,
        collection: str,
        query: NDArray[np.float32],
        *,
        limit: int,
        filter: Mapping[str, Any] | None = None,
    ) -> list[tuple[int, float]]:
        """Return the nearest chunks, as ``DocumentStore.search_vectors`` does; knows no filters."""
        if collection != self._name or filter:
            raise InvalidInput(
                f"only {self._name!r} without filters can be searched here", hint="leave them out"
            )
        cosines = self._vectors @ query
        order = np.lexsort((self._ids, -cosines))[:limit]
        return [(int(self._ids[at]), float(cosines[at])) for at in order]


async def revectored(
    store: DocumentStore,
    collection: str,
    pieces: Sequence[TextPiece],
    embedding: EmbeddingService,
    *,
    told: OnProgress | None = None,
) -> DocumentStore:
    """Embed all ``pieces`` of ``collection`` anew; return the store as seen through those vectors.

    Memory: one float32 row a piece. Raises what embedding raises.
    """
    vectors = np.empty((len(pieces), embedding.dimensions), np.float32)
    for start in range(0, len(pieces), _AT_ONCE):
        some = [piece.text for piece in pieces[start : start + _AT_ONCE]]
        rows = await embedding.embed_each(some, role="document")
        for at, row in enumerate(rows, start):
            if isinstance(row, OndolError):
                raise row
            vectors[at] = row
        if told is not None:
            told(start + len(some), len(pieces))
    view = RevectoredStore(
        store,
        collection,
        embedder=embedding.model,
        ids=[piece.chunk for piece in pieces],
        vectors=vectors,
    )
    return cast("DocumentStore", view)


OnStage = Callable[[str, int, int], None]
"""Told what is being done, how far it is, and of how much."""

_FAITHFUL_TEXTS = 96
_MOST_MADE = 300


@dataclass(frozen=True, slots=True)
class FinetuningOptions:
    """What to make: a model ``name`` from the settings' embedder, for ``collection``.

    ``from_text`` is how many pairs are made of the text; ``share`` how much is held back where
    there is no file to judge by. A reranker keeps the first ``keep`` layers (0: all) and learns
    from the reranker ``teacher`` of the library (empty: from the judgements).
    """

    name: str
    collection: str
    share: float = 0.3
    from_text: int = 0
    mining: Mining = field(default_factory=Mining)
    keep: int = 0
    teacher: str = ""


@dataclass(frozen=True, slots=True)
class PreparedFinetuning:
    """A run that can start: the material, the questions that judge, and what names it."""

    identity: str
    material: TrainingMaterial
    held_back: tuple[Query, ...]
    overlapping: int
    data_digest: str


@dataclass(frozen=True, slots=True)
class FinetuningOutcome:
    """A model that was examined; ``made`` is what its entry will say of how it came to be."""

    entry: CatalogueEntry
    verdict: ExamVerdict
    made: dict[str, Any]


class Finetuning:
    """Runs ``wish`` by ``recipe`` over the store of ``settings``; the base is their embedder."""

    def __init__(
        self,
        settings: Settings,
        wish: FinetuningOptions,
        recipe: Recipe,
        *,
        library: ModelLibrary,
        clock: Clock,
        told: OnStage | None = None,
    ) -> None:
        self._settings = settings
        self._wish = wish
        self._recipe = recipe
        self._clock = clock
        self._told = told
        self._models = settings.home / "models"
        self._work = settings.home / "finetuning" / wish.name
        self._library = library
        check_new_id(self._models, wish.name)
        self._base = library.files(settings.models.embedder)
        check_trainable(self._base.entry, recipe)

    async def prepare(
        self, container: Container, pairs: Sequence[Query], judge: Sequence[Query] | None = None
    ) -> PreparedFinetuning:
        """Split the pairs, make more of the text where wished, and look for wrong passages.

        ``judge`` are the questions to hold back; without them, a share of ``pairs``. Raises
        ``NotFound`` for the collection and ``InvalidInput`` where there is too little.
        """
        wish = self._wish
        pieces = await asyncio.to_thread(self._pieces, container)
        made = made_pairs(pieces, limit=wish.from_text, seed=self._recipe.seed)
        parted, made = self._parted(pairs, made, judge)
        known = {piece.document for piece in pieces}
        held = tuple(q for q in parted.held_back if known & set(q.relevant))
        if not held:
            raise InvalidInput(
                f"no question names a document of {wish.collection!r}",
                hint="pairs name documents as `ondol documents list` does",
            )
        digest = digest_of([*parted.training, *parted.held_back])
        identity = self._identity(container, digest, len(made))
        path = self._work / f"material-{identity}.json"
        material = await asyncio.to_thread(read_material, path)
        if material is None:
            maker = MaterialMaker(
                container.retrieval,
                wish.collection,
                pieces,
                mining=wish.mining,
                told=lambda done, total: self._tell("looking for wrong passages", done, total),
            )
            material = await maker.from_pairs(parted.training, made)
            self._work.mkdir(parents=True, exist_ok=True)
            await asyncio.to_thread(write_material, path, material)
        return PreparedFinetuning(identity, material, held, parted.overlapping, digest)

    def train(
        self, prepared: PreparedFinetuning, *, told: OnTraining | None = None
    ) -> tuple[TrainedWeights, Faithful]:
        """Train, write the candidate, and make its default form; blocks for as long as it takes.

        Goes on from the checkpoint of the same run. Raises ``ModelError``.
        """
        for stale in self._work.glob("*-*.*"):
            if prepared.identity not in stale.name:
                stale.unlink(missing_ok=True)
        learned = self._learn(prepared, told)
        self._tell("writing the model", 0, 0)
        entry = make_candidate(
            self._base,
            learned.tensors,
            name=self._wish.name,
            root=self._candidates,
            digest=prepared.identity,
            keep=self._wish.keep,
        )
        texts = self._sample(prepared.material)
        found = faithful_forms(
            candidate_files(entry, self._candidates),
            texts[:: max(1, len(texts) // _FAITHFUL_TEXTS)][:_FAITHFUL_TEXTS],
            threads=self._recipe.threads or 1,
            max_loss=self._settings.fidelity.max_loss,
        )
        return learned, found

    async def examine(
        self, container: Container, prepared: PreparedFinetuning, entry: CatalogueEntry
    ) -> ExamVerdict:
        """Ask the held-back questions of the base (in ``container``) and of the candidate."""
        pieces = await asyncio.to_thread(self._pieces, container)
        parts = Parts(reranker=False, keywords=False, generator=False)
        async with self._opened(entry, parts) as tuned:
            view = await revectored(
                container.store,
                self._wish.collection,
                pieces,
                tuned.embedding,
                told=lambda done, total: self._tell("embedding the collection", done, total),
            )
            return await examine(
                container.retrieval,
                container.retrieval_over(view, tuned.embedding),
                self._wish.collection,
                prepared.held_back,
                modes=modes_of(self._settings.retrieval.mode),
                now=self._clock.monotonic,
                told=lambda done, total: self._tell("asking both models", done, total),
            )

    def finish(
        self,
        prepared: PreparedFinetuning,
        learned: TrainedWeights,
        found: Faithful,
        verdict: ExamVerdict,
    ) -> FinetuningOutcome:
        """Put the model into the library if it passed, and clear up; raises ``GateFailed`` if not.

        The candidate of a failed run stays in the work folder for a look; no settings can name it.
        """
        made = {
            "base": self._base.entry.id,
            "base_fingerprint": fingerprint_of(self._base),
            "collection": self._wish.collection,
            "data_digest": prepared.data_digest,
            "seed": self._recipe.seed,
            "recipe": asdict(self._recipe),
            "items": len(prepared.material.items),
            "training": asdict(learned.report),
            "form_loss": dict(found.losses),
            "gate": verdict.as_json(),
            "at": self._clock.wall(),
        }
        verdict.enforce()
        adopt(found.entry, self._candidates / self._wish.name, root=self._models, made=made)
        shutil.rmtree(self._work, ignore_errors=True)
        return FinetuningOutcome(found.entry, verdict, made)

    def _learn(self, prepared: PreparedFinetuning, told: OnTraining | None) -> TrainedWeights:
        return train_embedder(
            self._base,
            prepared.material.passages,
            prepared.material.items,
            self._recipe,
            checkpoint=self._checkpoint(prepared),
            identity=prepared.identity,
            clock=self._clock,
            told=told,
        )

    def _sample(self, material: TrainingMaterial) -> Sequence[str | Pair]:
        """Return what the candidate's forms are compared on."""
        return [self._base.entry.document_prefix + one for one in material.passages]

    def _opened(self, entry: CatalogueEntry, parts: Parts) -> Container:
        """Return a container, apart from all that is kept, that runs the candidate."""
        models = self._settings.models.model_copy(
            update={entry.role: entry.id, "form": "auto", "reranker_form": "auto"}
        )
        settings = self._settings.model_copy(update={"models": models, "home": self._work / "exam"})
        backends = BackendFactory(settings, library=self._candidate(entry))
        return Container.open(settings, parts=parts, backends=backends)

    def _checkpoint(self, prepared: PreparedFinetuning) -> Path:
        return self._work / f"checkpoint-{prepared.identity}.pt"

    @property
    def _candidates(self) -> Path:
        return self._work / "models"

    def _candidate(self, entry: CatalogueEntry) -> ModelLibrary:
        """The library that holds the candidate and nothing else."""
        return ModelLibrary(self._candidates, offline=True, models={entry.id: entry})

    def _pieces(self, container: Container) -> list[TextPiece]:
        return list(pieces_of(container.store, self._wish.collection))

    def _parted(
        self, pairs: Sequence[Query], made: Sequence[MadePair], judge: Sequence[Query] | None
    ) -> tuple[Split, list[MadePair]]:
        """Return the split, and the made pairs to train on: those of other documents than judge."""
        wish, seed = self._wish, self._recipe.seed
        if judge is not None:
            training = [q for q in pairs if q.text not in {one.text for one in judge}]
            return apart(training, judge, others=len(made)), list(made)
        if pairs:
            return split(pairs, share=wish.share, seed=seed), list(made)
        held = [pair for pair in made if in_share(pair.document, share=wish.share, seed=seed)]
        asked = [
            Query(f"made:{number}", pair.query, {pair.document: 1.0})
            for number, pair in enumerate(held)
        ]
        rest = [p for p in made if not in_share(p.document, share=wish.share, seed=seed)]
        return apart([], asked[:_MOST_MADE], others=len(rest)), rest

    def _identity(self, container: Container, digest: str, made: int) -> str:
        """Name the run by all that its result hangs on; how long it may take is no part of that."""
        kept = container.store.collection(self._wish.collection)
        free = {"minutes", "checkpoint_steps", "threads"}
        recipe = {k: v for k, v in asdict(self._recipe).items() if k not in free}
        said = [
            fingerprint_of(self._base),
            recipe,
            asdict(self._wish.mining),
            [type(self).__name__, self._wish.keep, self._wish.teacher],
            digest,
            made,
            [kept.name, kept.embedder, kept.documents, kept.chunks],
        ]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

    def _tell(self, what: str, done: int, total: int) -> None:
        if self._told is not None:
            self._told(what, done, total)
