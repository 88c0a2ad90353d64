"""Real model files for contract tests."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.postgres_server import PostgresServer

from ondol.core.errors import OndolError
from ondol.models.builds.native import find_build
from ondol.models.builds.recipe import LLAMACPP
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
def native_program(models_folder: Path) -> Path:
    """The llama.cpp that was built for this processor, beside the models; skips without one."""
    found = find_build(models_folder.parent / "builds", LLAMACPP)
    if found is None:
        pytest.skip("no native build; make one with: ondol models build llamacpp")
    return found[0]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL with pgvector; skips where there is none."""
    started = PostgresServer()
    yield started
    started.remove()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """A database of its own in it, empty."""
    from pg8000.native import Connection

    name = f"test_{secrets.token_hex(6)}"
    with Connection(
        "ondol", host="127.0.0.1", port=postgres_server.port, database="postgres"
    ) as connection:
        connection.run(f"CREATE DATABASE {name}")
    return postgres_server.url(name)
