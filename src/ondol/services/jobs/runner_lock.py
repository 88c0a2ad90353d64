"""One process at a time works the jobs of a home.

An advisory ``flock``: the kernel drops it when the holder ends, however it ends. So who gets it
knows that every item still marked as taken was left by a process that is gone.
"""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import TextIO

NAME = "jobs.lock"


class RunnerLock:
    """The lock of the home at ``home``. Not for more than one thread."""

    def __init__(self, home: Path) -> None:
        self._path = home / NAME
        self._file: TextIO | None = None

    @property
    def held(self) -> bool:
        return self._file is not None

    def take(self) -> bool:
        """Take it if nobody has it; returns at once, and whether it is ours."""
        if self._file is not None:
            return True
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        except BaseException:
            file.close()
            raise
        self._file = file
        return True

    def release(self) -> None:
        """Let the next have it. Later calls do nothing."""
        if self._file is not None:
            self._file.close()
            self._file = None
