"""What task tests run on: fake models, a generator that says what the test wants, a pack of its own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondol.app.container import Container
from ondol.backends.fake_generator import FakeGenerator
from ondol.core.types import GenerationRequest
from ondol.runtime.encoders.embedding import EmbeddingService
from ondol.runtime.generation.chat import ChatService
from ondol.runtime.generation.generation import GenerationEngine
from ondol.search.retrieval import RetrievalService
from ondol.store.documents import DocumentStore
from ondol.tasks.pack_library import PackLibrary
from ondol.tasks.step_context import StepContext
from ondol.tasks.task_service import TaskService

Answer = Callable[[GenerationRequest], str]


@dataclass(frozen=True)
class Staged:
    """The services of a container, with another generator."""

    container: Container
    chat: ChatService

    @property
    def embedding(self) -> EmbeddingService:
        return self.container.embedding

    @property
    def retrieval(self) -> RetrievalService:
        return self.container.retrieval

    @property
    def store(self) -> DocumentStore:
        return self.container.store


@asynccontextmanager
async def tasks_on(
    container: Container,
    answer: Answer,
    *,
    folders: tuple[str, ...] = (),
    context_tokens: int = 100_000,
) -> AsyncIterator[tuple[TaskService, FakeGenerator]]:
    """Yield the tasks of the shipped packs and of ``folders``, and the generator that answers."""

    def script(request: GenerationRequest) -> list[str]:
        return list(answer(request))

    generator = FakeGenerator(script=script, context_tokens=context_tokens)
    engine = GenerationEngine(generator, slots=1)
    home = container.settings.home
    bench = StepContext(Staged(container, ChatService(engine, model="fake")), home=home)
    try:
        yield TaskService(PackLibrary.open(home, folders), bench), generator
    finally:
        await engine.close(0)


def filling(request: GenerationRequest, text: str) -> str:
    """Return an answer that fits the request's schema: ``text`` for texts, the first of each enum."""
    return json.dumps(_value(request.json_schema or {}, text), ensure_ascii=False)


def _value(schema: Any, text: str) -> Any:
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "object":
        return {name: _value(inner, text) for name, inner in schema["properties"].items()}
    if schema.get("type") == "array":
        return [_value(schema["items"], text)]
    return text[: schema.get("maxLength", len(text))] if schema.get("type") == "string" else 1


def sample(pack: str, name: str) -> dict[str, Any]:
    """Return a shipped pack's sample input."""
    import ondol

    path = Path(ondol.__file__).parent / "packs" / pack / "samples" / name
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found
