"""Real model files for contract tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.postgres_server import PostgresServer
from tests.contract.vector_subjects import Copies

from ondol.core.errors import OndolError
from ondol.models.builds import LLAMACPP, find_build
from ondol.models.library import ModelLibrary


@pytest.fixture(scope="session")
def tiny_generator(models_folder: Path) -> Path:
    """The smallest generator's GGUF file; skips where it has not been pulled."""
    try:
        files = ModelLibrary(models_folder, offline=True).files("smollm2-135m-instruct")
    except OndolError as error:
        pytest.skip(f"{error.message}; {error.hint}")
    return files.model_path


@pytest.fixture(scope="session")
def korean_generator(models_folder: Path) -> Path:
    """A generator that knows Korean and tools; skips where it has not been pulled."""
    try:
        files = ModelLibrary(models_folder, offline=True).files("qwen2.5-coder-0.5b-instruct")
    except OndolError as error:
        pytest.skip(f"{error.message}; {error.hint}")
    return files.model_path


@pytest.fixture(scope="session")
def native_program(root: Path, models_folder: Path) -> Path:
    """The llama.cpp that was built for this processor; skips without one.

    ``make test-extras`` builds it in the repository, not among the user's own builds: there it
    would change what Ondol runs.
    """
    for home in (root / "build" / "native", models_folder.parent):
        build = find_build(home / "builds", LLAMACPP)
        if build is not None:
            return build[0]
    pytest.skip("no native build; make one with: make test-extras")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL with pgvector; skips where there is none."""
    started = PostgresServer()
    yield started
    started.remove()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """A database of its own in it, empty."""
    return postgres_server.create()


@pytest.fixture(scope="session")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Copies:
    """Vector stores that are filled once and copied for each test that wants one."""
    return Copies(tmp_path_factory.mktemp("filled"))
