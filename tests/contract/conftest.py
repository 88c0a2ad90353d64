"""Real model files for contract tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from ondol.core.errors import OndolError
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
