"""Behaviour that users and their files depend on has not changed, or was changed on purpose.

A difference that is meant is accepted with ``python scripts/write_pins.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.pins import pinned


@pytest.mark.parametrize(
    ("name", "value"),
    [("series.json", pinned.series), ("forms.json", pinned.forms)],
)
def test_names_that_others_wrote_down(name: str, value: Callable[[], Any]) -> None:
    assert value() == pinned.golden(name)


def test_the_openapi_document(tmp_path: Path) -> None:
    document = pinned.openapi(tmp_path / "home")
    golden = pinned.golden("openapi.json")
    assert sorted(document["paths"]) == sorted(golden["paths"])
    assert pinned.as_text(document) == pinned.as_text(golden)


async def test_rankings_and_what_the_generator_is_shown(tmp_path: Path) -> None:
    async with pinned.opened(tmp_path / "home") as (container, recording):
        await pinned.fill(container)
        assert await pinned.rankings(container) == pinned.golden("rankings.json")
        assert await pinned.prompts(container, recording) == pinned.golden("prompts.json")


async def test_a_home_of_an_earlier_version_answers_the_same_and_embeds_nothing_anew(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    pinned.unpack(home)
    async with pinned.opened(home) as (container, recording):
        reports = await pinned.fill(container)
        assert recording.batches == 0
        assert [report["unchanged"] for report in reports] == [
            len(texts) for texts in pinned.CORPORA.values()
        ]
        assert await pinned.rankings(container) == pinned.golden("rankings.json")
        assert await pinned.prompts(container, recording) == pinned.golden("prompts.json")
