"""A home with the real models and the ingested demo, shared by the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.command import Command

from ondol.models.library import ModelLibrary

NEEDED = ("multilingual-e5-small", "ms-marco-minilm-l12-v2", "qwen2.5-coder-0.5b-instruct")
DOCUMENTS = ("work_rules_ko.pdf", "handbook_en.md", "reviews.jsonl")


@pytest.fixture(scope="session")
def linked_home(tmp_path_factory: pytest.TempPathFactory, models_folder: Path) -> Path:
    """An empty home whose models are those of the user; skips where one is missing."""
    library = ModelLibrary(models_folder, offline=True)
    for model in NEEDED:
        if library.state(model) != "ready":
            pytest.skip(f"{model} is not in {models_folder}; fetch it: ondol models pull {model}")
    home = tmp_path_factory.mktemp("home")
    (home / "models").symlink_to(models_folder)
    return home


@pytest.fixture(scope="session")
def demo(linked_home: Path, root: Path) -> Command:
    """The command over a home that holds the demo's documents in the collection ``demo``."""
    command = Command(root, linked_home)
    report = command.json("ingest", *(f"examples/demo/{name}" for name in DOCUMENTS), "-c", "demo")
    assert report["failed"] == []
    assert report["added"] == 50
    return command
