"""Rules for every test: loopback only, no settings from outside, a home of its own.

Real weights are for tests marked ``model``; they lie in the folder that ``ONDOL_TEST_MODELS`` names,
or in the user's own Ondol home, where ``ondol models pull`` puts them.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from pytest_socket import socket_allow_hosts
from tests.korean_model import shared_analyzer

from ondol.app.components import Parts
from ondol.app.container import Container
from ondol.core.process import load_onnx_runtime_first
from ondol.core.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
_OUTSIDE = dict(os.environ)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # In the background and in parallel workers; what tests start would ignore ctrl-C, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

load_onnx_runtime_first()  # tests of the graph import usearch when they are collected


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the extras where they are not installed, as in the development environment."""
    if all(find_spec(name) for name in ("torch", "transformers", "bitsandbytes")):
        return
    skip = pytest.mark.skip(reason="the extras are not installed; run: make test-extras")
    for item in items:
        if item.get_closest_marker("extras"):
            item.add_marker(skip)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Take all that was imported out of the collector's sight.

    Every model that is loaded or unloaded has garbage collected; walking the modules and the tests
    each time took most of the time of the tests that start a server or a container.
    """
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    socket_allow_hosts(["127.0.0.1", "::1"], allow_unix_socket=True)


@pytest.fixture(autouse=True)
def isolated_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No ``ONDOL_*`` variable from outside, and a home that is empty and thrown away."""
    for name in list(os.environ):
        if name.startswith("ONDOL_") or name == "USE_OPTIMIZED_MODELS":
            monkeypatch.delenv(name)
    monkeypatch.setenv("ONDOL_HOME", str(tmp_path / "ondol-home"))
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def models_folder() -> Path:
    """The folder of pulled models; skips where there is none."""
    home = Path(_OUTSIDE.get("ONDOL_HOME") or Path.home() / ".local/share/ondol")
    folder = Path(_OUTSIDE.get("ONDOL_TEST_MODELS") or home / "models")
    if not folder.is_dir():
        pytest.skip(f"no models in {folder}; fetch them with: ondol models pull")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data: ``ONDOL_SHARED_DATA``, else beside the repository; skips where it is absent."""
    folder = Path(_OUTSIDE.get("ONDOL_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; ONDOL_SHARED_DATA names another folder")
    return folder


@pytest.fixture
async def container(tmp_path: Path) -> AsyncIterator[Container]:
    settings = Settings.model_validate(
        {"home": tmp_path / "home", "answer": {"min_relevance": 0.0}}
    )
    opening = Container.open(settings, parts=Parts(fake=True), analyzer=shared_analyzer())
    async with opening as opened:
        yield opened
