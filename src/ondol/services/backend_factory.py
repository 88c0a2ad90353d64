"""Chooses and constructs the model backends that the settings name.

Each model library is imported only when its backend is built.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ondol.backends.base import Encoder, Generator, GeneratorHealth
from ondol.core.machine import Machine
from ondol.core.settings import Settings
from ondol.models.library import ModelLibrary
from ondol.models.profile import choose_generator

_log = logging.getLogger("ondol.container")


class BackendFactory:
    """Builds encoders and generators; all methods block while weights load."""

    def __init__(
        self, settings: Settings, *, library: ModelLibrary, machine: Machine, fake: bool
    ) -> None:
        self._settings = settings
        self._library = library
        self._machine = machine
        self._fake = fake
        self.generator_reason = ""
        self.generator_bytes = 0
        self.generator_model = "generator"

    def embedder(self) -> tuple[Encoder, tuple[str, str]]:
        if self._fake:
            from ondol.backends.fake_encoder import FakeEmbedder

            return FakeEmbedder(), ("", "")
        from ondol.models.loading import load_encoder

        files = self._library.files(self._settings.models.embedder)
        encoder = load_encoder(files, form=self._settings.models.form, threads=self._threads())
        return encoder, (files.entry.query_prefix, files.entry.document_prefix)

    def reranker(self) -> tuple[Encoder, tuple[str, ...]]:
        if self._fake:
            from ondol.backends.fake_encoder import FakeReranker

            return FakeReranker(), ("en",)
        from ondol.models.loading import load_encoder

        files = self._library.files(self._settings.models.reranker)
        return load_encoder(files, form="auto", threads=self._threads()), files.entry.languages

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

        files = self._library.files(self._choose_generator())
        self.generator_model = files.entry.id
        self.generator_bytes = files.model_path.stat().st_size
        return LlamaCppGenerator(
            files.model_path,
            model=files.entry.id,
            context_tokens=settings.context_tokens,
            slots=settings.slots,
            threads=settings.threads or self._machine.cores,
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
        choice = choose_generator(self._machine, available=self._library.ready("generator"))
        self.generator_reason = choice.reason
        _log.info("generator %s: %s", choice.model_id, choice.reason)
        return choice.model_id

    def _threads(self) -> int:
        return self._settings.models.threads or self._machine.cores


def passage_budget(weight_bytes: int, *, cores: int) -> int:
    """Return how many passage tokens a generator of ``weight_bytes`` reads in about 2.7 seconds.

    Prefill reads about ``cores`` × 50 GB of weights per second on AVX2 (llama.cpp, Q4_K_M: 0.49 GB
    203 tokens/s and 1.12 GB 91 tokens/s on two Zen 5 cores). Unknown weights count as 1 GB.
    """
    tokens_per_second = cores * 50e9 / (weight_bytes or 1e9)
    return int(min(2000, max(200, 2.7 * tokens_per_second)))
