"""Chooses and constructs the model backends that the settings name.

Each model library is imported only when its backend is built.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ondol.backends.base import Generator, GeneratorHealth
from ondol.core.machine import Machine, describe
from ondol.core.settings import Settings
from ondol.models.generator_choice import choose_generator
from ondol.models.library import ModelLibrary
from ondol.services.encoder_plan import EncoderSource

_log = logging.getLogger("ondol.container")


Component = Literal["embedder", "reranker"]


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
        self.generator_bytes = 0
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
            from ondol.services.fake_encoders import FakeEncoders

            return FakeEncoders(role, form=form)
        from ondol.services.catalogue_encoder import CatalogueEncoder

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
        from ondol.backends.llamacpp_generator import LlamaCppGenerator

        files = self.library.files(self._choose_generator())
        self.generator_model = files.entry.id
        self.generator_bytes = files.model_path.stat().st_size
        return LlamaCppGenerator(
            files.model_path,
            model=files.entry.id,
            context_tokens=settings.context_tokens,
            slots=settings.slots,
            threads=settings.threads or self.machine.cores,
            batch_tokens=settings.batch_tokens,
            cache_mib=settings.cache_mb,
            device=settings.device,
            on_state=on_state,
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


def passage_budget(weight_bytes: int, *, cores: int) -> int:
    """Return how many passage tokens a generator of ``weight_bytes`` reads in about 2.7 seconds.

    Prefill reads about ``cores`` × 50 GB of weights per second on AVX2 (llama.cpp, Q4_K_M: 0.49 GB
    203 tokens/s and 1.12 GB 91 tokens/s on two Zen 5 cores). Unknown weights count as 1 GB.
    """
    tokens_per_second = cores * 50e9 / (weight_bytes or 1e9)
    return int(min(2000, max(200, 2.7 * tokens_per_second)))
