"""One process at a time may change a model's folder.

An advisory ``flock`` on a file of its own: the kernel drops it when the holder ends, however it
ends, so a killed pull never locks out the next.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock ``path``; waits for as long as another process or thread holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def lock_path(root: Path, model_id: str) -> Path:
    """Return the lock file of a model in the models folder ``root``."""
    return root / ".locks" / f"{model_id}.lock"
