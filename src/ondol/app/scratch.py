"""A folder for work that nobody keeps: under the home, so on its disk, and gone with the work.

However the work ends, its folder is removed; one whose process was killed is removed by the next that
needs one. Whose process lives is told by an advisory ``flock`` on the folder, which the kernel drops.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ondol.core.errors import StoreError
from ondol.core.private_files import private_folder

PREFIX = "scratch-"


@contextmanager
def scratch_folder(home: Path) -> Iterator[Path]:
    """Yield an empty folder in ``home`` and remove it afterwards with all that is in it.

    Blocking, for the time it takes to remove what a killed process left. Raises ``StoreError``
    where ``home`` cannot be written.
    """
    try:
        folder, held = _made(home)
    except OSError as error:
        raise StoreError(
            f"no folder can be made in {home}: {error.strerror}",
            hint="set ONDOL_HOME to a folder this user may write",
            code="store_unwritable",
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def _made(home: Path) -> tuple[Path, int]:
    """Return a new folder and the descriptor that holds its lock."""
    private_folder(home)
    with _locked(home):  # so that nobody takes a folder for left over before it is locked
        _sweep(home)
        folder = Path(tempfile.mkdtemp(dir=home, prefix=PREFIX))
        held = os.open(folder, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
    return folder, held


def _sweep(home: Path) -> None:
    for folder in home.glob(f"{PREFIX}*"):
        if not folder.is_dir():
            continue
        found = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # its process lives
        else:
            shutil.rmtree(folder, ignore_errors=True)  # leaves a link and what it leads to
        finally:
            os.close(found)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)
