"""A server of our own: its settings, its home, and one with a real generator."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ondol.core.errors import ProbeFailed
from ondol.core.settings import Settings, load_settings
from ondol.core.settings.sections import GenerationSettings, ServerSettings
from ondol.lab.bench.load_measuring import shots_now, yardstick_of
from ondol.lab.bench.load_plan import Manner, ask
from ondol.lab.bench.load_prompts import PromptMaker
from ondol.lab.bench.request_trace import Row
from ondol.lab.bench.server_child import (
    ServedChild,
    ServerChild,
    environment,
    only_generator,
    tree_memory_mb,
)
from ondol.models.library import ModelLibrary

MODEL = "smollm2-135m-instruct"


def test_a_child_has_the_callers_settings_with_a_few_laid_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONDOL_GENERATION_SLOTS", "9")
    mine = Settings(
        home=tmp_path,
        offline=True,
        server=ServerSettings(port=8401, api_keys=("secret",), drain_seconds=3),
        generation=GenerationSettings(slots=3, context_tokens=512),
    )
    over = only_generator(mine, model=MODEL, slots=6, policy="sjf")
    environ = environment(mine, over, home=tmp_path / "scratch")
    theirs = load_settings(environ={k: v for k, v in environ.items() if k.startswith("ONDOL_")})
    assert theirs.home == tmp_path / "scratch"
    assert theirs.offline
    assert (theirs.server.port, theirs.server.api_keys) == (0, ())
    assert theirs.server.drain_seconds == 3
    generation = theirs.generation
    assert (generation.slots, generation.context_tokens) == (6, 512)
    assert (generation.model, generation.policy) == (MODEL, "sjf")
    assert theirs.models.reranker == "none"
    assert theirs.lanes.chat.running == 6
    assert theirs.lanes.chat.queue == mine.lanes.chat.queue


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", offline=True)
    with pytest.raises(ProbeFailed, match="ended while starting"):
        ServerChild(settings, only_generator(settings, model=MODEL, slots=1, policy="fifo"))


def test_memory_is_that_of_a_process_and_its_children() -> None:
    now, peak = tree_memory_mb(os.getpid()), tree_memory_mb(os.getpid(), peak=True)
    assert 0 < now <= peak * 1.01
    assert tree_memory_mb(2**30) == 0


@pytest.mark.model
def test_a_real_generator_counts_what_the_prompt_maker_promised(
    tmp_path: Path, models_folder: Path
) -> None:
    library = ModelLibrary(models_folder, offline=True)
    if library.state(MODEL) != "ready" or not library.ready("embedder"):
        pytest.skip(f"no {MODEL}, or no embedder, in {models_folder}")
    home = tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(models_folder)
    generation = GenerationSettings(slots=2, context_tokens=512)
    settings = Settings(home=home, offline=True, generation=generation)
    with ServedChild(settings, model=MODEL) as child:
        maker = PromptMaker(yardstick_of(child.target), seed=1)
        rows = [Row(0, 90, 6), Row(0, 120, 4)]
        seen = ask(child.target, shots_now(maker, rows, first=0), Manner(concurrency=2)).seen
        assert child.memory_mb() > 0
    assert [one.outcome for one in seen] == ["ok", "ok"]
    assert sorted(one.prompt_tokens for one in seen) == [90, 120]
    assert sorted(one.completion_tokens for one in seen) == [4, 6]
