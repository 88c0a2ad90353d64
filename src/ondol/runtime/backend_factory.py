"""Chooses and constructs the model backends that the settings name.

Each model library is imported only when its backend is built.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ondol.backends.protocols import Generator, GeneratorHealth
from ondol.core.machine import Machine, describe
from ondol.core.settings import Settings
from ondol.models.generator_form import (
    GeneratorForm,
    KnownGenerator,
    choose_generator,
    choose_generator_form,
    estimated_rate,
    generator_key,
)
from ondol.models.library import ModelFiles, ModelLibrary
from ondol.models.profile import read_profile
from ondol.runtime.encoders.encoder_plan import EncoderSource
from ondol.runtime.generation.generator_assembly import (
    GeneratorBuild,
    builds_folder,
    make_generator,
    native_builds,
    offered_forms,
)

_log = logging.getLogger("ondol.container")


Component = Literal["embedder", "reranker"]

LEAST_PASSAGE_TOKENS, MOST_PASSAGE_TOKENS = 200, 2000


class BackendFactory:
    """Says where encoders come from, and builds generators; loading blocks.

    Owns the model library and what is known of the machine. A subclass may replace any of them:
    a container takes its factory as ``backends``.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        fake: bool = False,
        library: ModelLibrary | None = None,
        machine: Machine | None = None,
    ) -> None:
        self.machine = machine or describe()
        self.library = library or ModelLibrary(
            settings.home / "models",
            offline=settings.offline,
            extra_sources=[Path(text).expanduser() for text in settings.models.sources],
        )
        self._settings = settings
        self._fake = fake
        self.generator_reason = ""
        self._rate = 0.0
        self.generator_model = "generator"

    def encoder(self, component: Component) -> EncoderSource:
        """Return the source of the embedder or the reranker that the settings name."""
        models = self._settings.models
        name = models.embedder if component == "embedder" else models.reranker
        return self.model(name, role=component)

    def model(self, name: str, *, role: Component) -> EncoderSource:
        """Return the source of any encoder, in the form the settings name where it is theirs."""
        models = self._settings.models
        forms = {models.embedder: models.form, models.reranker: models.reranker_form}
        return self._encoder(name, role=role, form=forms.get(name, "auto"))

    def candidate(self) -> EncoderSource:
        """Return the source of the A/B candidate: a form of the model in service, or a model."""
        ab, models = self._settings.ab, self._settings.models
        if ":" not in ab.candidate:
            return self.model(ab.candidate, role=ab.component)
        model = models.embedder if ab.component == "embedder" else models.reranker
        return self._encoder(model, role=ab.component, form=ab.candidate)

    def _encoder(self, name: str, *, role: Component, form: str) -> EncoderSource:
        if self._fake:
            from ondol.runtime.encoders.fake_encoders import FakeEncoders

            return FakeEncoders(role, form=form)
        from ondol.runtime.encoders.catalogue_encoder import CatalogueEncoder

        return CatalogueEncoder(
            name,
            role=role,
            wanted=form,
            settings=self._settings.models,
            library=self.library,
            machine=self.machine,
            home=self._settings.home,
        )

    def generator(self, *, on_state: Callable[[GeneratorHealth], None]) -> Generator:
        settings = self._settings.generation
        if self._fake:
            from ondol.backends.fake_generator import FakeGenerator

            return FakeGenerator()
        if settings.upstream:
            from ondol.backends.openai_generator import OpenAIGenerator

            return OpenAIGenerator(
                settings.upstream,
                model="" if settings.model == "auto" else settings.model,
                key=settings.upstream_key,
                context_tokens=settings.context_tokens,
                slots=settings.slots,
            )
        files = self.library.files(self._choose_generator())
        plan = self.generator_form(files)
        _log.info("%s in the form %s: %s", files.entry.id, plan.form, plan.reason)
        self.generator_model = files.entry.id
        self._rate = plan.prefill_rate
        return make_generator(
            GeneratorBuild(
                plan=plan,
                files=files,
                settings=settings,
                builds=builds_folder(self._settings.home),
                on_state=on_state,
            )
        )

    def generator_form(self, files: ModelFiles) -> GeneratorForm:
        """Return how the local generator ``files`` is to run: by the settings, else as tuned."""
        settings, home = self._settings.generation, self._settings.home
        key = generator_key(files, machine=self.machine, builds=native_builds(home))
        found = read_profile(home).models.get(files.entry.id)
        return choose_generator_form(
            KnownGenerator(
                cores=self.machine.cores,
                weight_bytes=files.model_path.stat().st_size,
                offered=offered_forms(home),
                profile=found if found is not None and found.key == key else None,
            ),
            wanted=settings.form,
            tuned=self._settings.models.optimize == "auto",
            threads=settings.threads,
            batch_tokens=settings.batch_tokens,
        )

    def _choose_generator(self) -> str:
        wanted = self._settings.generation.model
        if wanted != "auto":
            self.generator_reason = "named in the settings"
            return wanted
        choice = choose_generator(self.machine, available=self.library.ready("generator"))
        self.generator_reason = choice.reason
        _log.info("generator %s: %s", choice.model_id, choice.reason)
        return choice.model_id

    def passage_budget(self, seconds: float) -> int:
        """Return how many passage tokens the generator reads in ``seconds``: 200 to 2,000."""
        rate = self._rate or estimated_rate(0, cores=self.machine.cores)
        return int(min(MOST_PASSAGE_TOKENS, max(LEAST_PASSAGE_TOKENS, seconds * rate)))

    def prefill_rate(self) -> float:
        """Return how many prompt tokens a second the generator should read; 0 where unknown.

        As ``ondol tune`` measured it here, else estimated from the size of the weights.
        """
        return self._rate
