"""Prefixes and adapters of a real llama.cpp: what is shared, and what never is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.contract.lora_file import write_lora

from ondol.backends.llamacpp_generator import LlamaCppGenerator
from ondol.backends.llamacpp_slots import Adapter
from ondol.backends.protocols import PrefixAware, Preloading
from ondol.core.cancel import CancelToken
from ondol.core.errors import InvalidInput
from ondol.core.types import DoneEvent, GenerationRequest, Message, TokenEvent

pytestmark = pytest.mark.model

STANDING = "You answer questions about heated floors, shortly and politely. " * 12
SECRET = "The contract of Kim says the rent is 512 won. " * 12
SECONDS = 60.0


@pytest.fixture(
    scope="module", params=["portable", pytest.param("native", marks=pytest.mark.native)]
)
def program(request: pytest.FixtureRequest) -> Path | None:
    """What runs: the wheel's server, or the one that was built here."""
    found: Path | None = None
    if request.param == "native":
        found = request.getfixturevalue("native_program")
    return found


@pytest.fixture(scope="module")
def generator(
    tiny_generator: Path, program: Path | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LlamaCppGenerator]:
    folder = tmp_path_factory.mktemp("adapters")
    adapters = [
        Adapter("loud", write_lora(folder / "loud.gguf", strength=0.5)),
        Adapter("none", write_lora(folder / "none.gguf", strength=0.0)),
        Adapter("muted", folder / "loud.gguf", scale=0.0),
    ]
    found = LlamaCppGenerator(
        tiny_generator, model="tiny", context_tokens=2048, slots=2, batch_tokens=64,
        adapters=adapters, program=program,
    )  # fmt: skip
    yield found
    found.close()


def request(user: str, **kwargs: Any) -> GenerationRequest:
    messages = [Message("system", STANDING), Message("user", user)]
    return GenerationRequest(messages, **({"max_tokens": 1} | kwargs))


def run(generator: LlamaCppGenerator, wanted: GenerationRequest) -> tuple[str, DoneEvent]:
    *pieces, done = generator.generate(wanted, cancel=CancelToken())
    assert isinstance(done, DoneEvent)
    return "".join(piece.text for piece in pieces if isinstance(piece, TokenEvent)), done


def cached(generator: LlamaCppGenerator, wanted: GenerationRequest) -> int:
    return run(generator, wanted)[1].usage.cached_tokens


def test_a_standing_prefix_serves_one_owner_and_then_is_theirs(
    tiny_generator: Path,
) -> None:
    generator = LlamaCppGenerator(
        tiny_generator, model="tiny", context_tokens=2048, slots=2, batch_tokens=64
    )
    try:
        assert isinstance(generator, PrefixAware)
        assert isinstance(generator, Preloading)
        generator.preload([[Message("system", STANDING)]])
        assert generator.wait_preloaded(SECONDS)
        standing = generator.count_tokens(STANDING)
        ann, bob = request(SECRET, cache_salt="ann"), request(SECRET, cache_salt="bob")
        assert generator.cached_chars(ann) >= len(STANDING)

        first = cached(generator, ann)

        assert standing - 8 <= first <= standing + 16
        assert generator.cached_chars(bob) == 0
        assert cached(generator, bob) == 0
        assert cached(generator, ann) > first
        assert generator.cached_chars(ann) > len(STANDING) + len(SECRET)
    finally:
        generator.close()


def test_prefixes_are_read_again_after_a_restart(tiny_generator: Path) -> None:
    ready = threading.Semaphore(0)
    generator = LlamaCppGenerator(
        tiny_generator, model="tiny", context_tokens=2048, slots=2, batch_tokens=64,
        on_state=lambda health: ready.release() if health.ready else None,
    )  # fmt: skip
    try:
        assert ready.acquire(timeout=SECONDS)
        generator.preload([[Message("system", STANDING)]])
        assert generator.wait_preloaded(SECONDS)
        assert generator.child is not None
        generator.child.kill("the test killed it")
        assert ready.acquire(timeout=SECONDS)
        assert generator.wait_preloaded(SECONDS)

        assert cached(generator, request("Hello", cache_salt="ann")) > 100
    finally:
        generator.close()


def test_real_requests_do_not_wait_for_prefixes(tiny_generator: Path) -> None:
    generator = LlamaCppGenerator(
        tiny_generator, model="tiny", context_tokens=2048, slots=1, batch_tokens=32
    )
    try:
        generator.preload([[Message("system", STANDING * 8)]])
        for salt in ("ann", "bob"):
            assert run(generator, request("Hello", cache_salt=salt))[0]
    finally:
        generator.close()


def test_an_adapter_changes_the_answer_only_where_it_is_named(
    generator: LlamaCppGenerator,
) -> None:
    def answer(adapter: str) -> str:
        return run(generator, request("Name three colours.", max_tokens=16, adapter=adapter))[0]

    plain = answer("")

    assert generator.spec.adapters == ("loud", "none", "muted")
    assert answer("loud") != plain
    assert answer("none") == plain
    assert answer("muted") == plain
    assert answer("") == plain


def test_adapters_never_share_a_prompt_cache(generator: LlamaCppGenerator) -> None:
    def cached_for(adapter: str) -> int:
        return cached(generator, request(SECRET, cache_salt="ann", adapter=adapter))

    assert [cached_for("loud"), cached_for("none"), cached_for("muted")] == [0, 0, 0]
    assert cached_for("muted") > 100
    assert cached_for("") == 0
    assert generator.cached_chars(request(SECRET, cache_salt="ann", adapter="loud")) == 0


def test_adapters_side_by_side_answer_as_alone(generator: LlamaCppGenerator) -> None:
    def answer(adapter: str, salt: str) -> str:
        # Salted, for a prompt that is read from the cache may round otherwise than one that is not.
        asked = request("Name a colour.", max_tokens=12, adapter=adapter, cache_salt=salt)
        return run(generator, asked)[0]

    adapters = ("loud", "")
    alone = [answer(adapter, "alone") for adapter in adapters]

    with ThreadPoolExecutor(len(adapters)) as pool:
        together = list(pool.map(lambda adapter: answer(adapter, "together"), adapters))

    assert together == alone


def test_an_unknown_adapter_is_refused_by_name(generator: LlamaCppGenerator) -> None:
    with pytest.raises(InvalidInput, match="'quiet'; loaded are: loud, none, muted"):
        run(generator, request("Hello", adapter="quiet"))
