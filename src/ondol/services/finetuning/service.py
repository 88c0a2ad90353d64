"""One fine-tuning run: what to learn from, learning it, the exam, and the place in the library.

Owns ``<home>/finetuning/<name>/``: the material, the checkpoint, the candidate. All of it goes when the
model is adopted; a run that was stopped goes on from there when it is asked for again. Training
itself is ``models.finetuning``'s.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ondol.core.clock import Clock
from ondol.core.errors import InvalidInput
from ondol.core.settings import Settings
from ondol.core.types import Pair
from ondol.models.catalogue import CatalogueEntry
from ondol.models.finetuning.candidate import adopt, candidate_files, make_candidate
from ondol.models.finetuning.embedder import Learned, check_trainable, train_embedder
from ondol.models.finetuning.embedder import Told as TrainingTold
from ondol.models.finetuning.faithful import Faithful, faithful_forms
from ondol.models.finetuning.recipe import Recipe
from ondol.models.library import ModelLibrary
from ondol.models.own_models import check_new_id
from ondol.models.profile import fingerprint_of
from ondol.services.backend_factory import BackendFactory
from ondol.services.components import Parts
from ondol.services.container import Container
from ondol.services.evaluation.datasets import Query
from ondol.services.finetuning.exam import Verdict, examine, modes_of
from ondol.services.finetuning.material import (
    Material,
    MaterialMaker,
    Mining,
    read_material,
    write_material,
)
from ondol.services.finetuning.pairs import (
    Split,
    apart,
    digest_of,
    in_share,
    split,
)
from ondol.services.finetuning.pieces import Piece, pieces_of
from ondol.services.finetuning.revectored import revectored
from ondol.services.finetuning.selfmade import MadePair, made_pairs

Told = Callable[[str, int, int], None]
"""Told what is being done, how far it is, and of how much."""

_FAITHFUL_TEXTS = 96
_MOST_MADE = 300


@dataclass(frozen=True, slots=True)
class Wish:
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
class Prepared:
    """A run that can start: the material, the questions that judge, and what names it."""

    identity: str
    material: Material
    held_back: tuple[Query, ...]
    overlapping: int
    data_digest: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """A model that was examined; ``made`` is what its entry will say of how it came to be."""

    entry: CatalogueEntry
    verdict: Verdict
    made: dict[str, Any]


class Finetuning:
    """Runs ``wish`` by ``recipe`` over the store of ``settings``; the base is their embedder."""

    def __init__(
        self,
        settings: Settings,
        wish: Wish,
        recipe: Recipe,
        *,
        library: ModelLibrary,
        clock: Clock,
        told: Told | None = None,
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
    ) -> Prepared:
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
        return Prepared(identity, material, held, parted.overlapping, digest)

    def train(
        self, prepared: Prepared, *, told: TrainingTold | None = None
    ) -> tuple[Learned, Faithful]:
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
        self, container: Container, prepared: Prepared, entry: CatalogueEntry
    ) -> Verdict:
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
        self, prepared: Prepared, learned: Learned, found: Faithful, verdict: Verdict
    ) -> Outcome:
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
        return Outcome(found.entry, verdict, made)

    def _learn(self, prepared: Prepared, told: TrainingTold | None) -> Learned:
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

    def _sample(self, material: Material) -> Sequence[str | Pair]:
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

    def _checkpoint(self, prepared: Prepared) -> Path:
        return self._work / f"checkpoint-{prepared.identity}.pt"

    @property
    def _candidates(self) -> Path:
        return self._work / "models"

    def _candidate(self, entry: CatalogueEntry) -> ModelLibrary:
        """The library that holds the candidate and nothing else."""
        return ModelLibrary(self._candidates, offline=True, models={entry.id: entry})

    def _pieces(self, container: Container) -> list[Piece]:
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
