"""A home that an earlier version made opens, and nothing in it is lost or computed again."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.pins.golden import check
from tests.pins.home import account, query_texts, unpack, versions


def test_there_is_a_home() -> None:
    assert versions()


@pytest.mark.parametrize("version", versions())
async def test_home(version: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    unpack(version, home)
    opened = await account(home)
    computed = [text for text in opened.embedded if text not in query_texts()]
    assert computed == [], "texts of documents were embedded again"
    check(f"homes/{version}.txt", opened.text)
