"""All packs there are: those that come with Ondol, and the user's own.

A folder of packs holds one folder per pack. One that cannot be used says why, with file and key, and
keeps the process from starting: a task that was declared and is silently absent would be worse. A
user's pack takes the place of a shipped one of the same name.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from ondol.core.errors import NotFound
from ondol.tasks.declaration import Pack, Task
from ondol.tasks.pack_file import PACK_FILE, read_pack

_log = logging.getLogger("ondol.tasks")


class PackLibrary:
    """The packs of one process, read once."""

    def __init__(self, packs: Sequence[Pack]) -> None:
        self.packs: dict[str, Pack] = {pack.name: pack for pack in packs}

    @classmethod
    def open(cls, home: Path, folders: Sequence[str] = ()) -> PackLibrary:
        """Read the shipped packs, those in ``home/packs`` and in ``folders``, later ones first in rank.

        Raises ``InvalidInput`` for a pack that cannot be used and ``NotFound`` for a folder that is
        not there.
        """
        packs = [read_pack(folder, built_in=True) for folder in _in(shipped_folder())]
        own = home / "packs"
        for folder in [
            *([own] if own.is_dir() else []),
            *(Path(one).expanduser() for one in folders),
        ]:
            if not folder.is_dir():
                raise NotFound(
                    f"there is no folder {folder}", hint="mend tasks.packs", param="tasks.packs"
                )
            for path in [folder] if (folder / PACK_FILE).is_file() else _in(folder):
                packs.append(read_pack(path))
                _log.info("pack %s read from %s", packs[-1].name, path)
        return cls(packs)

    @property
    def tasks(self) -> dict[str, Task]:
        """Every task by its full name, in order."""
        found = {name: task for pack in self.packs.values() for name, task in pack.tasks.items()}
        return dict(sorted(found.items()))

    def task(self, name: str) -> Task:
        """Return a task; raises ``NotFound`` with near names."""
        tasks = self.tasks
        if name not in tasks:
            near = difflib.get_close_matches(name, tasks, n=1, cutoff=0.4)
            raise NotFound(
                f"there is no task {name[:80]!r}",
                hint=f"did you mean {near[0]!r}?" if near else f"the tasks are {', '.join(tasks)}",
                code="unknown_task",
                param="task",
            )
        return tasks[name]


def shipped_folder() -> Path:
    """Return where the packs lie that come with Ondol."""
    return Path(str(resources.files("ondol") / "packs"))


def _in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if (path / PACK_FILE).is_file())
