"""The one place where the pins reach inside: what they need and no public route gives.

When modules move, the imports below move with them and nothing else in this folder changes. The
models are fakes whose work can be counted; everything else is the real server and the real command.
"""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import click
import httpx
from tests.korean_model import shared_analyzer

import ondol
from ondol import Container, Settings
from ondol.app.components import Parts
from ondol.backends.fake_encoder import FakeEmbedder
from ondol.backends.fake_generator import FakeGenerator, echo
from ondol.backends.protocols import EncoderBackend, EncoderSpec, Generator, GeneratorHealth
from ondol.cli.invocation import Invocation
from ondol.cli.main import cli, main
from ondol.core.errors import OUTCOMES, OndolError
from ondol.core.events import Observer
from ondol.core.types import Encoded, GenerationRequest, Pair
from ondol.jobs.work import FAKE_TASK, FakeWork
from ondol.models.catalogue import CatalogueEntry, catalogue
from ondol.models.download import FetchedFile
from ondol.models.form import parse_form
from ondol.models.form_choice import FormChoice
from ondol.models.forms import every_form, maker_of
from ondol.models.library import ModelFiles, ModelLibrary
from ondol.models.manifest import Manifest, write_manifest
from ondol.models.profile import (
    Chosen,
    ModelProfile,
    Profile,
    ProfileKey,
    chosen,
    fingerprint_of,
    read_profile,
    write_profile,
)
from ondol.runtime.backend_factory import BackendFactory, Component
from ondol.runtime.embedding_cache.cache_memory import frozen_vector, pack
from ondol.runtime.embedding_cache.cache_sqlite import SqliteEmbeddingCache
from ondol.runtime.embedding_cache.embedding_cache import keys_of
from ondol.runtime.encoders.encoder_plan import EncoderSource
from ondol.runtime.encoders.fake_encoders import FakeEncoders
from ondol.server.app import create_app
from ondol.telemetry.metrics import TABLE

FINGERPRINT = "f00d5eed-1"
WARM_UP = "온돌 warm-up"
TASK = FAKE_TASK
SAMPLES = Path(ondol.__file__).parent / "packs"
COMMAND: click.Command = cli

ERRORS = OUTCOMES
SERIES = TABLE

# Fakes score far below what relevance is calibrated for; what they miss is at 0.
BARELY = 1e-42


class PinnedEmbedder(FakeEmbedder):
    """The fake embedder with a fingerprint, so that its vectors are cached; notes every text."""

    def __init__(self, *, form: str, texts: list[str]) -> None:
        super().__init__(form=form)
        self._texts = texts

    @property
    def spec(self) -> EncoderSpec:
        return replace(super().spec, fingerprint=FINGERPRINT)

    def tokenize(
        self, items: Sequence[str | Pair], *, truncate: bool
    ) -> list[Encoded | OndolError]:
        self._texts.extend(item for item in items if isinstance(item, str) and item != WARM_UP)
        return super().tokenize(items, truncate=truncate)


class PinnedEmbedders(FakeEncoders):
    """Where pinned embedders come from."""

    def __init__(self, texts: list[str]) -> None:
        super().__init__("embedder")
        self._texts = texts

    def encoder(self, choice: FormChoice) -> EncoderBackend:
        return PinnedEmbedder(form=choice.form, texts=self._texts)


class PinnedBackends(BackendFactory):
    """The pinned embedder, or the settings' own encoders; always a fake generator."""

    def __init__(self, settings: Settings, *, stage: Stage) -> None:
        super().__init__(settings, fake=not stage.real)
        self._stage = stage

    def encoder(self, component: Component) -> EncoderSource:
        if component == "embedder" and not self._stage.real:
            return PinnedEmbedders(self._stage.embedded)
        return super().encoder(component)

    def generator(self, *, on_state: Callable[[GeneratorHealth], None]) -> Generator:
        return self._stage.generator


@dataclass
class Stage:
    """A server over ``home``, and what its models were asked.

    ``embedded`` are the texts that reached the embedder; ``reply`` is what the generator answers,
    ``None`` the least that fits the schema asked for, or what it was asked.
    """

    home: Path
    settings: dict[str, Any] = field(default_factory=dict)
    real: bool = False
    reply: str | None = "Yes."
    embedded: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.generator = FakeGenerator(script=self._answer, context_tokens=32768)

    @property
    def prompts(self) -> list[GenerationRequest]:
        return self.generator.order

    def _answer(self, request: GenerationRequest) -> Sequence[str]:
        if self.reply is None:
            return cast("Sequence[str]", echo(request))
        return [piece + " " for piece in self.reply.split(" ")]

    @asynccontextmanager
    async def running(self, *, works: bool = True) -> AsyncIterator[httpx.AsyncClient]:
        """Run the server and yield a client of it; without ``works`` nobody works its jobs."""
        app = create_app(self._settings(), opener=self._container)
        async with app.router.lifespan_context(app):
            await app.state.lifecycle.loaded()
            if not works:
                await app.state.lifecycle.drain(1.0)
            transport = httpx.ASGITransport(app)
            base = "http://127.0.0.1"
            async with httpx.AsyncClient(transport=transport, base_url=base, timeout=60) as client:
                yield client

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document of the server, which is not started."""
        return create_app(self._settings(), opener=self._container).openapi()

    def command(self, *arguments: str) -> tuple[int, str]:
        """Run the real command on the home with fake models; return exit code and JSON printed."""
        line = ["--home", str(self.home), "--offline", "--json", *arguments]
        out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
        with redirect_stdout(out), redirect_stderr(io.StringIO()):
            code = main(line, invocation=Invocation(open_container=self._commanded))
            out.seek(0)
            return code, out.read()

    def _commanded(self, settings: Settings, parts: Parts) -> Container:
        return Container.open(
            settings,
            parts=replace(parts, keywords=False),
            backends=PinnedBackends(settings, stage=self),
            analyzer=shared_analyzer(),
            work=FakeWork(),
        )

    def _settings(self) -> Settings:
        sections: dict[str, Any] = {
            "home": self.home,
            "offline": True,
            "cache": {"embeddings": "sqlite"},
            "answer": {} if self.real else {"min_relevance": BARELY},
            "jobs": {"poll_seconds": 0.02, "backoff_seconds": 0.01, "give_way_seconds": 0},
            **self.settings,
        }
        return Settings.model_validate(sections)

    def _container(self, settings: Settings, observer: Observer) -> Container:
        return Container.open(
            settings,
            parts=Parts(keywords=False, record=True),
            observer=observer,
            backends=PinnedBackends(settings, stage=self),
            analyzer=shared_analyzer(),
            work=FakeWork(),
        )


def encoder_forms() -> dict[str, list[tuple[str, str, int]]]:
    """Return (form, file stem, version of its recipe) of every form of every catalogue encoder."""
    return {
        entry.id: [
            (form, parse_form(form).file_stem, maker_of(parse_form(form)).version)
            for form in every_form(entry)
        ]
        for entry in catalogue().values()
        if entry.role != "generator"
    }


def catalogue_entries() -> list[CatalogueEntry]:
    return list(catalogue().values())


def fingerprint(entry: CatalogueEntry, folder: Path) -> str:
    """Return the fingerprint of a model whose files have the catalogue's hashes."""
    folder.mkdir(parents=True)
    fetched = tuple(
        FetchedFile(name=file.name, bytes=file.bytes, sha256=file.sha256 or "0" * 64, source="pin")
        for file in entry.files
    )
    write_manifest(folder, Manifest(model=entry.id, files=fetched))
    return fingerprint_of(
        ModelFiles(entry=entry, folder=folder, model_path=folder, tokenizer_path=None, bytes=0)
    )


def real_fingerprint(model: str, models: Path) -> str:
    """Return the fingerprint of a pulled model."""
    return fingerprint_of(ModelLibrary(models, offline=True).files(model))


def cache_key(text: str, *, truncate: bool = False, **spec: Any) -> bytes:
    """Return the key under which the embedding cache keeps the vector of ``text``."""
    known: dict[str, Any] = {
        **{"model": "fake-embedder", "form": "fake:fp32", "role": "embedder"},
        **{"dimensions": 64, "max_tokens": 512, "fingerprint": FINGERPRINT},
        **spec,
    }
    keys = keys_of([text], spec=EncoderSpec(**known), truncate=truncate)
    return cast("list[bytes]", keys)[0]


def cache_entry(key: bytes, values: Sequence[float], *, tokens: int) -> bytes:
    """Return the bytes of an entry of the embedding cache."""
    import numpy as np

    return pack(key, frozen_vector(np.asarray(values, dtype=np.float32), tokens))


def cached(home: Path, texts: Sequence[str]) -> list[str]:
    """Return those of ``texts`` whose vector the cache of ``home`` holds."""
    cache = SqliteEmbeddingCache(home / "embeddings.db", limit_bytes=2**30)
    try:
        entries = cache.get_many([cache_key(text) for text in texts])
        return [text for text in texts if cache_key(text) in entries]
    finally:
        cache.close()


PROFILE_KEY = ProfileKey("a processor", 4, {"ondol": "0.1.0", "onnxruntime": "1.20.0"}, "0123abcd")


def write_tuned(home: Path) -> None:
    """Write a profile as ``ondol tune`` does."""
    tuned = ModelProfile(
        model="multilingual-e5-small",
        key=PROFILE_KEY,
        tuned="2026-11-30",
        chosen={
            "query": Chosen("native:int8", threads=4, token_budget=2048),
            "bulk": Chosen("onnx:int8", threads=2, token_budget=8192, policy="arrival", streams=2),
        },
        evidence=({"form": "native:int8", "fidelity": {"cosine_mean": 0.99}},),
    )
    write_profile(home, Profile().with_model(tuned))


def tuned_choices(home: Path) -> list[str]:
    """Return what the profile of ``home`` chose."""
    profile = read_profile(home)
    return [
        f"{model} {purpose}: {json.dumps(asdict(choice))}"
        for model, tuned in profile.models.items()
        for purpose in tuned.chosen
        if (choice := chosen(profile, model, purpose, PROFILE_KEY)) is not None
    ]
