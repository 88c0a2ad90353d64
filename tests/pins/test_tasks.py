"""Built-in tasks declare, ask and answer what was pinned."""

from __future__ import annotations

from pathlib import Path

from tests.pins.golden import check
from tests.pins.tasks import tasks


async def test_tasks(tmp_path: Path) -> None:
    check("tasks.txt", await tasks(tmp_path))
