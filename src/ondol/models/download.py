"""Brings one file of a model to disk, whole and checked, from the first source that can.

Bytes go to a part file while they are hashed, are flushed to the disk, compared, and only then
renamed: a half or wrong file never has the final name. Knows nothing of where sources get bytes.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ondol.core.errors import DownloadFailed, HashMismatch, OndolError
from ondol.core.private_files import private_folder
from ondol.models.catalogue import ModelFile
from ondol.models.sources import CHUNK_BYTES, FileSource, Report


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """A file as it lies on disk: its true size and SHA-256, and where it came from."""

    name: str
    bytes: int
    sha256: str
    source: str


def fetch_file(
    model_id: str,
    file: ModelFile,
    *,
    folder: Path,
    partial: Path,
    sources: Sequence[FileSource],
    report: Report,
) -> FetchedFile:
    """Put ``file`` into ``folder``, trying ``sources`` in order; every source's bytes are checked.

    Raises ``HashMismatch`` when a source had other bytes and no other source the right ones, and
    ``DownloadFailed`` with every source's reason otherwise. A full disk ends the search at once.
    """
    failures: list[tuple[str, OndolError]] = []
    for source in sources:
        if not source.offers(model_id, file):
            continue
        origin = source.describe(model_id, file)
        try:
            chunks = source.chunks(model_id, file, report=report)
            size, digest = store(chunks, folder / file.name, partial=partial, file=file)
            return FetchedFile(name=file.name, bytes=size, sha256=digest, source=origin)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise _disk_full(folder, file) from error
            failures.append((origin, DownloadFailed(str(error))))
        except (DownloadFailed, HashMismatch) as error:
            failures.append((origin, error))
    raise _nothing_worked(model_id, file, failures)


def store(
    chunks: Iterable[bytes], target: Path, *, partial: Path, file: ModelFile
) -> tuple[int, str]:
    """Write ``chunks`` to ``target`` atomically; return (size, SHA-256).

    Raises ``HashMismatch`` with both hashes, and removes the part file, when they differ.
    """
    private_folder(partial)
    part = partial / f"{file.name}.part"
    digest = hashlib.sha256()
    size = 0
    try:
        with part.open("wb") as out:
            for chunk in chunks:
                size += len(chunk)
                if file.sha256 and size > file.bytes:
                    raise HashMismatch(
                        f"{file.name} is longer than the {file.bytes} bytes the catalogue names",
                        hint="the source may be damaged or tampered with; nothing was kept",
                    )
                out.write(chunk)
                digest.update(chunk)
            out.flush()
            os.fsync(out.fileno())
        found = digest.hexdigest()
        if file.sha256 and found != file.sha256:
            raise HashMismatch(
                f"{file.name} has SHA-256 {found}; the catalogue names {file.sha256}",
                hint="the source may be damaged or tampered with; nothing was kept",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return size, found


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file on disk."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _disk_full(folder: Path, file: ModelFile) -> DownloadFailed:
    return DownloadFailed(
        f"the disk became full while {file.name} ({file.bytes:,} bytes) was written to {folder}",
        hint="free some space, or move ONDOL_HOME to a larger disk, and pull again",
        code="disk_full",
    )


def _nothing_worked(
    model_id: str, file: ModelFile, failures: Sequence[tuple[str, OndolError]]
) -> OndolError:
    reasons = "; ".join(f"{origin}: {error.message}" for origin, error in failures)
    mismatch = next((e for _, e in failures if isinstance(e, HashMismatch)), None)
    if mismatch is not None:
        return HashMismatch(f"{model_id}: {reasons}", hint=mismatch.hint)
    if not failures:
        return DownloadFailed(
            f"no source has {file.name} of {model_id}",
            hint=f"put the file into a folder named in models.sources, as {model_id}/{file.name}",
        )
    hint = failures[-1][1].hint or "check the network and pull again"
    return DownloadFailed(f"{file.name} of {model_id} could not be had: {reasons}", hint=hint)
