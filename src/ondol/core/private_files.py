"""Folders and files that only their owner may read: whoever makes the home first makes it so."""

from __future__ import annotations

from pathlib import Path


def private_folder(path: Path) -> None:
    """Make ``path`` and the folders above it that are missing, each for its owner alone (0700).

    ``Path.mkdir`` gives its mode to the last folder only. Folders that exist stay as they are.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
    if not missing:
        path.mkdir(exist_ok=True)  # raises where a file has the name


def private_file(path: Path) -> None:
    """Make ``path`` an empty file for its owner alone (0600), in such a folder, unless it exists."""
    private_folder(path.parent)
    if not path.exists():
        path.touch(mode=0o600)
