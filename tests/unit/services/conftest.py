from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ondol.core.settings import Settings
from ondol.services.container import Container, Parts


@pytest.fixture
async def container(tmp_path: Path) -> AsyncIterator[Container]:
    settings = Settings.model_validate(
        {"home": tmp_path / "home", "answer": {"min_relevance": 0.0}}
    )
    async with Container.open(settings, parts=Parts(fake=True)) as opened:
        yield opened
