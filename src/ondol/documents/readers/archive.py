"""ZIP containers (HWPX, DOCX, EPUB) under limits: what is inside is read with its size bounded.

The sizes a directory names are not believed: members are inflated up to the limit and no further.
Names are looked up, never written to disk.
"""

from __future__ import annotations

import io
import zipfile
import zlib

from ondol.core.errors import ReadError
from ondol.documents.readers.reader_contract import DocumentSource, ReadLimits

_MEMBERS = 20_000
_PER_CHAR = 8  # bytes of markup for each character a document may hold
_CHUNK = 1 << 20


class Archive:
    """A ZIP file's members by name. ``name`` tells the format in messages."""

    def __init__(self, source: DocumentSource, *, limits: ReadLimits) -> None:
        """Open ``source``. Raises ``ReadError``: ``damaged``, ``encrypted`` or ``too_large``."""
        self._source = source
        self._left = limits.max_chars * _PER_CHAR
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(source.data))
            members = self._zip.infolist()
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
            raise self._damaged(str(error)) from error
        if len(members) > _MEMBERS:
            raise self._too_large(f"{len(members):,} members")
        if any(member.flag_bits & 1 for member in members):
            raise encrypted(source)
        self.names = tuple(member.filename for member in members)

    def read(self, name: str) -> bytes | None:
        """Return the bytes of member ``name``, or ``None`` when there is none.

        Raises ``ReadError``: ``too_large`` when all that was read passes eight bytes for each
        character a document may hold, ``damaged`` when it cannot be inflated.
        """
        if name not in self.names:
            return None
        pieces: list[bytes] = []
        try:
            with self._zip.open(name) as member:
                while piece := member.read(_CHUNK):
                    self._left -= len(piece)
                    if self._left < 0:
                        raise self._too_large("markup past the limit")
                    pieces.append(piece)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            OSError,
            ValueError,
            NotImplementedError,
        ) as error:
            raise self._damaged(f"{name}: {error}") from error
        return b"".join(pieces)

    def need(self, name: str) -> bytes:
        """Return the bytes of member ``name``. Raises ``ReadError`` (``damaged``) without it."""
        data = self.read(name)
        if data is None:
            raise self._damaged(f"{name} is missing")
        return data

    def _damaged(self, reason: str) -> ReadError:
        return damaged(self._source, reason)

    def _too_large(self, what: str) -> ReadError:
        return ReadError(
            f"{self._source.name!r} unpacks to {what}",
            code="too_large",
            hint="Split it, or raise `ingest.max_chars`.",
            param=self._source.name,
        )


def damaged(source: DocumentSource, reason: str) -> ReadError:
    """Return the error of a file that is cut off or broken inside."""
    return ReadError(
        f"{source.name!r} ({len(source.data):,} bytes) is broken inside: {reason[:200]}",
        code="damaged",
        hint="Fetch or export the file again; it may be cut off.",
        param=source.name,
    )


def encrypted(source: DocumentSource) -> ReadError:
    """Return the error of a file that needs a password."""
    return ReadError(
        f"{source.name!r} is encrypted and needs a password",
        code="encrypted",
        hint="Save a copy without a password and read that.",
        param=source.name,
    )
