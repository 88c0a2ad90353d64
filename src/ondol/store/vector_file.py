"""The derived matrix on disk: ``<collection id>.f16``, one file, replaced as a whole.

Layout, little-endian: a 64-byte header (magic, format, dimensions, rows, CRC-32 of the rest, stamp),
then ``rows`` int64 chunk ids ascending, then ``rows × dimensions`` float16. A file that is short,
long, foreign or fails its checksum does not load; whoever asked rebuilds it from the database.

Moving vectors from one search to another, with proof that nothing was lost.

The database stays the truth: moving means bringing the new copy level with it, then comparing
count and checksum of what the copy really holds with what the database holds.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.core.errors import StoreError
from ondol.core.private_files import private_folder
from ondol.store import collections
from ondol.store.database import Database
from ondol.store.vector_search import Contents, VectorSearch, contents_of, read_rows

_HEADER = struct.Struct("<8sIIQI32s4x")
_MAGIC = b"ONDOLF16"
_FORMAT = 1
SUFFIX = ".f16"


@dataclass(frozen=True, slots=True)
class VectorFile:
    """Chunk ids (n,) int64 ascending and their vectors (n, d) float16, as of ``stamp``."""

    stamp: str
    ids: NDArray[np.int64]
    rows: NDArray[np.float16]


def path_of(folder: Path, collection: int) -> Path:
    """Return where the matrix of a collection lies."""
    return folder / f"{collection}{SUFFIX}"


def load(path: Path, *, dimensions: int) -> VectorFile | None:
    """Map the file, or return ``None`` where it is missing or not whole."""
    try:
        data = np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError):  # ValueError: an empty file cannot be mapped
        return None
    if data.size < _HEADER.size:
        return None
    magic, version, width, count, checksum, stamp = _HEADER.unpack(data[: _HEADER.size].tobytes())
    size = _HEADER.size + count * (8 + 2 * width)
    if (magic, version, width, size) != (_MAGIC, _FORMAT, dimensions, data.size):
        return None
    body = data[_HEADER.size :]
    if zlib.crc32(body.data) != checksum:
        return None
    return VectorFile(
        stamp=stamp.rstrip(b"\x00").decode("ascii", "replace"),
        ids=np.asarray(body[: 8 * count]).view("<i8").astype(np.int64, copy=False),
        rows=body[8 * count :].view("<f2").reshape(count, width),
    )


def size(path: Path) -> int:
    """Return the bytes a file takes on disk; none where it is missing."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def usable(path: Path, *, stamp: str, dimensions: int) -> bool:
    """Return whether the file is whole and was written under ``stamp``."""
    file = load(path, dimensions=dimensions)
    return file is not None and file.stamp == stamp


def save(path: Path, file: VectorFile) -> None:
    """Write the file beside its place, flush it to disk, then put it in place in one step."""
    ids = np.ascontiguousarray(file.ids, dtype="<i8")
    rows = np.ascontiguousarray(file.rows, dtype="<f2")
    checksum = zlib.crc32(rows.data, zlib.crc32(ids.data))
    count, width = rows.shape
    stamp = file.stamp.encode("ascii")
    replace(
        path,
        [
            _HEADER.pack(_MAGIC, _FORMAT, width, count, checksum, stamp),
            raw(ids),
            raw(rows),
        ],
    )


def raw(array: NDArray[Any]) -> memoryview:
    """Return the bytes of a contiguous array, without a copy."""
    return array.reshape(-1).view(np.uint8).data


def replace(path: Path, parts: Sequence[bytes | memoryview]) -> None:
    """Put a file with these parts in place of ``path``: all of it or none, flushed to disk."""
    private_folder(path.parent)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as out:
            for part in parts:
                out.write(part)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_ATTEMPTS = 3  # another process may write between the two counts


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A collection whose copy was proven: so many vectors, of this checksum."""

    collection: str
    rows: int
    checksum: int


def mirror(database: Database, search: VectorSearch) -> list[Mirrored]:
    """Bring the copy of every collection level with the database and prove it.

    A copy that differs is dropped and made again.
    Raises ``StoreError`` where a copy still differs.
    """
    with database.read() as connection:
        names = [row.name for row in collections.rows(connection)]
    return [_mirrored(database, search, name) for name in names]


def _mirrored(database: Database, search: VectorSearch, name: str) -> Mirrored:
    for attempt in range(_ATTEMPTS):
        if attempt:
            search.forget(_identity(database, name))
        search.refresh(name)
        wanted, held = _truth(database, name), search.contents(name)
        if wanted == held:
            return Mirrored(name, held.rows, held.checksum)
    raise StoreError(
        f"the index of {name!r} holds {held.rows} vectors (checksum {held.checksum:016x}), "
        f"the database {wanted.rows} (checksum {wanted.checksum:016x})",
        hint="run it again while nothing is ingested; if it stays so, run `ondol doctor --repair`",
        code="store_damaged",
    )


def _identity(database: Database, name: str) -> int:
    with database.read() as connection:
        return collections.find(connection, name).id


def _truth(database: Database, name: str) -> Contents:
    with database.read() as connection:
        found = collections.find(connection, name)
        return contents_of(*read_rows(connection, found, after=0))
