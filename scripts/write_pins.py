"""Write the golden files of ``tests/pins`` anew: ``python scripts/write_pins.py [NAME…]``.

What they say is what must not change by accident. Run it to accept a change that is meant, read the
diff, and commit it with the change. ``--models DIR`` writes also what the default models in that folder give.
``--home VERSION`` keeps a home made by the code at hand; homes of earlier versions stay as they are.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.pins import exchanges, surface  # noqa: E402
from tests.pins import home as homes  # noqa: E402
from tests.pins.golden import write  # noqa: E402
from tests.pins.identity import identity  # noqa: E402
from tests.pins.ranking import CORPORA, ranking, real_ranking  # noqa: E402
from tests.pins.tasks import tasks  # noqa: E402

ON_MODELS = "_models.txt"
MODELS = Path.home() / ".local/share/ondol/models"

Pin = Callable[[Path], Awaitable[str]]


def pins(*, models: Path) -> Mapping[str, Pin]:
    """Return what makes each golden file, given an empty folder."""
    made: dict[str, Pin] = {
        "openapi.json": _plain(surface.openapi),
        "commands.txt": _plain(lambda _: surface.commands()),
        "metrics.txt": surface.metrics,
        "replies.txt": exchanges.served,
        "output.txt": exchanges.commanded,
        "settings.txt": _plain(lambda _: surface.settings()),
        "names.txt": _plain(surface.names),
        "errors.txt": _plain(lambda _: surface.errors()),
        "tasks.txt": tasks,
        "identity.txt": _plain(identity),
    }
    for language in CORPORA:
        made[f"ranking_{language}.txt"] = _ranking(language)
        made[f"ranking_{language}{ON_MODELS}"] = _ranking(language, models)
    for version in homes.versions():
        made[f"homes/{version}.txt"] = _home(version)
    return made


def _plain(text: Callable[[Path], str]) -> Pin:
    async def pin(folder: Path) -> str:
        return text(folder)

    return pin


def _ranking(language: str, models: Path | None = None) -> Pin:
    async def pin(folder: Path) -> str:
        if models is None:
            return await ranking(folder, language=language)
        return await real_ranking(folder, models, language=language)

    return pin


def _home(version: str) -> Pin:
    async def pin(folder: Path) -> str:
        homes.unpack(version, folder / "home")
        return (await homes.account(folder / "home")).text

    return pin


async def _keep_home(version: str) -> None:
    path = homes.HOMES / f"{version}.tar.gz"
    if path.exists():
        raise SystemExit(f"{path.relative_to(ROOT)} is kept; remove it first to make it anew")
    with tempfile.TemporaryDirectory() as folder:
        await homes.make(Path(folder) / "home")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(homes.packed(Path(folder) / "home"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="golden files; all unless named")
    parser.add_argument(
        "--models", type=Path, metavar="DIR", help=f"also what these give ({MODELS})"
    )
    parser.add_argument("--home", metavar="VERSION", help="keep a home made by this code")
    given = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("ONDOL_")]:
        del os.environ[name]
    if given.home:
        asyncio.run(_keep_home(given.home))
    made = pins(models=given.models or MODELS)
    for name in given.names:
        if name not in made:
            parser.error(f"unknown golden file {name}; known: {', '.join(made)}")
    plain = [name for name in made if given.models or not name.endswith(ON_MODELS)]
    for name in given.names or plain:
        with tempfile.TemporaryDirectory() as folder:
            changed = write(name, asyncio.run(_text(made[name], Path(folder))))
        sys.stdout.write(f"{'wrote' if changed else 'same '} tests/pins/golden/{name}\n")
    return 0


async def _text(pin: Pin, folder: Path) -> str:
    return await pin(folder)


if __name__ == "__main__":
    sys.exit(main())
