"""A graph on disk: ``<collection id>.hnsw``, one file, replaced as a whole.

Layout, little-endian: a 64-byte header (magic, format, dimensions, rows, bytes of the graph, CRC-32
of the rest, version of the library, strays), then ``rows`` int64 chunk ids ascending, their ``row_hashes``,
the ids of strays (rows the graph cannot find), then the library's own bytes. The hashes tell whether the graph is of these vectors: nothing in the
database has to be believed, and a file of another time, home or embedder is noticed.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ondol.store import vector_file
from ondol.store.matrix import Ids
from ondol.store.vector_search import Hashes

_HEADER = struct.Struct("<8sIIQQI16sQ4x")
_MAGIC = b"ONDOLANN"
_FORMAT = 1
SUFFIX = ".hnsw"


@dataclass(frozen=True, slots=True)
class GraphFile:
    """Ids (n,) ascending of the rows in the graph, their hashes (n,), and the graph itself."""

    library: str
    dimensions: int
    ids: Ids
    hashes: Hashes
    strays: Ids
    graph: bytes | bytearray


def path_of(folder: Path, collection: int) -> Path:
    """Return where the graph of a collection lies."""
    return folder / f"{collection}{SUFFIX}"


def load(path: Path, *, dimensions: int, library: str) -> GraphFile | None:
    """Read the file, or return ``None`` where it is missing, not whole, or another version's."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if len(data) < _HEADER.size:
        return None
    magic, version, width, count, size, checksum, maker, strays = _HEADER.unpack_from(data)
    whole = _HEADER.size + 16 * count + 8 * strays + size
    if (magic, version, width, whole) != (_MAGIC, _FORMAT, dimensions, len(data)):
        return None
    body = memoryview(data)[_HEADER.size :]
    if zlib.crc32(body) != checksum or maker != _name(library):
        return None
    return GraphFile(
        library=library,
        dimensions=dimensions,
        ids=np.frombuffer(body[: 8 * count], "<i8").astype(np.int64),
        hashes=np.frombuffer(body[8 * count : 16 * count], "<u8").astype(np.uint64),
        strays=np.frombuffer(body[16 * count : 16 * count + 8 * strays], "<i8").astype(np.int64),
        graph=bytes(body[16 * count + 8 * strays :]),
    )


def save(path: Path, file: GraphFile) -> None:
    """Put the file in place in one step, flushed to disk."""
    parts = [
        vector_file.raw(np.ascontiguousarray(file.ids, "<i8")),
        vector_file.raw(np.ascontiguousarray(file.hashes, "<u8")),
        vector_file.raw(np.ascontiguousarray(file.strays, "<i8")),
        memoryview(file.graph),
    ]
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    header = _HEADER.pack(
        _MAGIC,
        _FORMAT,
        file.dimensions,
        len(file.ids),
        len(file.graph),
        checksum,
        _name(file.library),
        len(file.strays),
    )
    vector_file.replace(path, [header, *parts])


def _name(library: str) -> bytes:
    return library.encode("ascii", "replace")[:16].ljust(16, b"\x00")
