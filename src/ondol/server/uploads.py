"""Files of a multipart body, checked and laid down where a reader can open them.

A file keeps its own name, without folders and control characters, and only for as long as the
``with`` block runs.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from ondol.core.errors import InvalidInput
from ondol.server.request_gate import RequestLimits

_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Uploaded:
    """One file: ``name`` as the caller gave it, ``path`` where its bytes lie for now."""

    name: str
    path: Path


@asynccontextmanager
async def uploaded_files(
    request: Request, *, limits: RequestLimits
) -> AsyncIterator[list[Uploaded]]:
    """Yield the files of a multipart body; raises ``InvalidInput`` for anything else in it."""
    try:
        form = await request.form(max_files=limits.items, max_fields=limits.items)
    except ValueError as error:
        raise InvalidInput(
            f"the multipart body is malformed: {error}",
            hint="let your HTTP client build the multipart body",
            code="malformed_form",
            param="body",
        ) from None
    try:
        files = _only_files(form, limits=limits)
        with tempfile.TemporaryDirectory(prefix="ondol-upload-") as folder:
            yield [
                await asyncio.to_thread(_lay_down, part, Path(folder) / str(index))
                for index, part in enumerate(files)
            ]
    finally:
        await form.close()


def _only_files(form: FormData, *, limits: RequestLimits) -> list[UploadFile]:
    files = []
    for field, part in form.multi_items():
        if not isinstance(part, UploadFile):
            raise InvalidInput(
                f"the form field {field[:80]!r} is not a file",
                hint="send files only, each with a file name",
                code="unknown_field",
                param=field[:80],
            )
        files.append(part)
    limits.count(len(files), param="files")
    return files


def _lay_down(part: UploadFile, folder: Path) -> Uploaded:
    name = _plain_name(part.filename or "")
    folder.mkdir()
    path = folder / f"upload{Path(name).suffix[:16]}"
    with path.open("wb") as out:
        shutil.copyfileobj(part.file, out)
    return Uploaded(name=name, path=path)


def _plain_name(name: str) -> str:
    """Return the last part of a path in NFC, printable characters only."""
    last = unicodedata.normalize("NFC", name.replace("\\", "/").rsplit("/", 1)[-1])
    plain = "".join(char for char in last if char.isprintable()).strip()
    if not plain.strip("."):
        raise InvalidInput(
            f"a file came with the name {name[:80]!r}",
            hint="send each file with its file name",
            code="missing_file_name",
            param="files",
        )
    stem, suffix = Path(plain).stem, Path(plain).suffix[:16]
    return stem[: _LONGEST_NAME - len(suffix)] + suffix
