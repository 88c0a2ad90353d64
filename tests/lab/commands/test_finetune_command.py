"""``ondol models finetune`` from the command line: a tiny real model, trained, examined, used."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.korean_model import shared_analyzer
from tests.lab.tuned_models import WORDS, tiny_model

from ondol.app.components import Parts
from ondol.app.container import Container
from ondol.core.settings import load_settings
from ondol.models.own_models import making_of

pytestmark = pytest.mark.extras

BASE = ("--set", "models.embedder=tiny", "--set", "models.form=onnx:fp32")
QUICK = (
    "--epochs",
    "12",
    "--batch",
    "8",
    "--rate",
    "0.01",
    "--precision",
    "fp32",
    "--mine",
    "dense",
)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "words"
    folder.mkdir()
    rows = [{"_id": f"d{n}", "title": "", "text": word} for n, word in enumerate(WORDS)]
    _write(folder / "corpus.jsonl", rows)
    return folder


def _write(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def _asked(tmp_path: Path, name: str, *, shift: int, tail: str) -> Path:
    """Pairs in which each word asks for the one ``shift`` places on: what no model knows untaught."""
    return _write(
        tmp_path / name,
        [
            {"query": f"{word} {tail}", "documents": [f"d{(n + shift) % len(WORDS)}"]}
            for n, word in enumerate(WORDS)
        ],
    )


def test_a_model_is_trained_passes_and_is_used_like_any_other(
    run: Run, corpus: Path, tmp_path: Path
) -> None:
    settings = load_settings()
    tiny_model(settings.home / "models")
    assert run("ingest", str(corpus / "corpus.jsonl"), "-c", "words").code == 0
    pairs = _asked(tmp_path, "pairs.jsonl", shift=1, tail="one")
    judge = _asked(tmp_path, "judge.jsonl", shift=1, tail="two")
    command = ("models", "finetune", "own", "-c", "words", "--pairs", str(pairs))
    done = run(*command, "--judge", str(judge), *BASE, *QUICK, "--json")
    assert done.code == 0, done.err
    assert done.data["model"] == "own"
    assert done.data["gate"]["modes"]["dense"]["difference"]["mean"] > 0
    assert done.data["training"]["last_loss"] < done.data["training"]["first_loss"]
    assert "steps, loss" in done.err
    listed = {model["id"]: model for model in run("models", "list", "--json").data["models"]}
    assert listed["own"]["state"] == "ready"
    made = making_of(settings.home / "models" / "own")
    assert made["base"] == "tiny"
    assert made["seed"] == 0
    info = run("models", "info", "own", "--json")
    assert info.data["id"] == "own"
    assert not (settings.home / "finetuning" / "own").exists()
    assert run(*command, *BASE, *QUICK).code == 2  # the name is taken


def test_a_model_that_finds_less_is_not_added(run: Run, corpus: Path, tmp_path: Path) -> None:
    settings = load_settings()
    tiny_model(settings.home / "models")
    assert run("ingest", str(corpus / "corpus.jsonl"), "-c", "words").code == 0
    pairs = _asked(tmp_path, "pairs.jsonl", shift=5, tail="one")
    judge = _asked(tmp_path, "judge.jsonl", shift=0, tail="two")  # what the base does best
    command = ("models", "finetune", "own", "-c", "words", "--pairs", str(pairs))
    done = run(*command, "--judge", str(judge), *BASE, *QUICK)
    assert done.code == 3
    assert "finds less" in done.err
    assert not (settings.home / "models" / "own").exists()
    assert run("models", "info", "own").code == 2


def test_what_cannot_work_is_told_before_any_work(run: Run, corpus: Path, tmp_path: Path) -> None:
    settings = load_settings()
    tiny_model(settings.home / "models")
    pairs = str(_asked(tmp_path, "pairs.jsonl", shift=1, tail="one"))
    assert run("models", "finetune", "own", "--pairs", pairs).code == 2  # no collection
    assert run("models", "finetune", "Own!", "-c", "words", *BASE).code == 2
    assert run("models", "finetune", "own", "-c", "nowhere", "--pairs", pairs, *BASE).code == 2


async def test_the_real_embedder_runs_in_a_container(tmp_path: Path) -> None:
    tiny_model(tmp_path / "home" / "models")
    settings = load_settings(flags={"home": tmp_path / "home", "models.embedder": "tiny"})
    parts = Parts(reranker=False, keywords=False, generator=False)
    async with Container.open(settings, parts=parts, analyzer=shared_analyzer()) as container:
        assert container.embedding.model == "tiny"
