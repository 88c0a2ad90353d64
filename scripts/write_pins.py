"""Write the golden files of ``tests/pins`` from the code at hand: ``python scripts/write_pins.py``.

Right only where a change of behaviour is meant; the diff of ``tests/pins/golden`` then shows it. The
home of an earlier version (``home.db.gz``) is written with ``--home`` alone: it stands
for what users have on their disks.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.pins import pinned


async def write(*, home: bool) -> None:
    """Write all golden files; those of the home only where ``home``."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "home"
        values = {
            "openapi.json": pinned.openapi(place),
            "series.json": pinned.series(),
            "forms.json": pinned.forms(),
        }
        async with pinned.opened(place) as (container, recording):
            await pinned.fill(container)
            values["rankings.json"] = await pinned.rankings(container)
            values["prompts.json"] = await pinned.prompts(container, recording)
        pinned.GOLDEN.mkdir(exist_ok=True)
        for name, value in values.items():
            (pinned.GOLDEN / name).write_text(pinned.as_text(value), "utf-8")
        if home:
            (pinned.GOLDEN / pinned.HOME).write_bytes(pinned.packed(place / "ondol.db"))


if __name__ == "__main__":
    asyncio.run(write(home="--home" in sys.argv[1:]))
