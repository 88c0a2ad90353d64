"""Rankings and selections are what was pinned, on fakes and on the default models."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.pins.golden import check
from tests.pins.ranking import CORPORA, ranking, real_ranking


@pytest.mark.parametrize("language", CORPORA)
async def test_on_fakes(language: str, tmp_path: Path) -> None:
    check(f"ranking_{language}.txt", await ranking(tmp_path, language=language))


@pytest.mark.model
@pytest.mark.parametrize("language", CORPORA)
async def test_on_the_default_models(language: str, tmp_path: Path, models_folder: Path) -> None:
    text = await real_ranking(tmp_path, models_folder, language=language)
    check(f"ranking_{language}_models.txt", text)
