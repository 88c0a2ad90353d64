from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.korean_model import shared_analyzer

from ondol.core.settings import Settings
from ondol.services.components import Parts
from ondol.services.container import Container


@pytest.fixture
async def container(tmp_path: Path) -> AsyncIterator[Container]:
    settings = Settings.model_validate(
        {"home": tmp_path / "home", "answer": {"min_relevance": 0.0}}
    )
    opening = Container.open(settings, parts=Parts(fake=True), analyzer=shared_analyzer())
    async with opening as opened:
        yield opened
