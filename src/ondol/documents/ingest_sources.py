"""Where an ingest's documents come from: paths, digests, blocking readers walked without blocking.

A digest is that of the content (a file's bytes, a record's fields), a colon, and the stamp of the
recipe it is indexed by: a change of either is seen, and the recipe can change without the file.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ondol.core.errors import InvalidInput, NotFound, ReadError
from ondol.core.types import ReadDocument
from ondol.documents.readers import ReadFailure

_STAMP = 16  # hexadecimal digits


def expand(paths: Sequence[Path]) -> list[Path]:
    if not paths:
        raise InvalidInput("no path was given", hint="name at least one file or folder")
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(
                p
                for p in path.rglob("*")
                if p.is_file()
                and not any(part.startswith(".") for part in p.relative_to(path).parts)
            )
        elif path.exists():
            files.append(path)
        else:
            raise NotFound(f"{path} does not exist", hint="check the path", param=str(path))
    return list(dict.fromkeys(path.resolve() for path in files))


def stamped(content: str, recipe: str) -> str:
    """Return the digest of ``content`` (a digest itself) as indexed by ``recipe``."""
    return f"{content}:{hashlib.sha256(recipe.encode()).hexdigest()[:_STAMP]}"


def restamped(digest: str, recipe: str) -> str:
    """Return what ``digest`` becomes under ``recipe``: itself, if that is the one it is under."""
    return stamped(digest.partition(":")[0], recipe)


def file_digest(path: Path, recipe: str) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return stamped(digest.hexdigest(), recipe)


def document_digest(document: ReadDocument, recipe: str) -> str:
    digest = hashlib.sha256()
    for part in (
        document.title,
        document.text,
        json.dumps(document.metadata, sort_keys=True, default=str),
    ):
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return stamped(digest.hexdigest(), recipe)


def empty(source: str) -> ReadError:
    return ReadError(f"{source} holds no text", hint="check the file's content", code="empty")


def duplicate(source: str) -> ReadError:
    return ReadError(
        f"{source} occurs twice in its file",
        hint="give every record an id of its own",
        code="bad_record",
    )


async def as_async(
    results: Sequence[ReadDocument | ReadFailure],
) -> AsyncIterator[ReadDocument | ReadFailure]:
    for result in results:
        yield result


async def iterate(
    start: Callable[[], Iterator[ReadDocument | ReadFailure]],
) -> AsyncIterator[ReadDocument | ReadFailure]:
    """Walk a blocking iterator in threads, a bounded slice at a time."""
    iterator = await asyncio.to_thread(start)

    def some() -> list[ReadDocument | ReadFailure]:
        taken: list[ReadDocument | ReadFailure] = []
        for result in iterator:
            taken.append(result)
            if len(taken) >= 64:
                break
        return taken

    while results := await asyncio.to_thread(some):
        for result in results:
            yield result


async def renamed(
    results: AsyncIterator[ReadDocument | ReadFailure], path: str, source: str, name: str
) -> AsyncIterator[ReadDocument | ReadFailure]:
    """Give what was read from a temporary file the identity of the upload."""
    async for result in results:
        renamed = source + result.source.removeprefix(path)
        if isinstance(result, ReadFailure):
            yield ReadFailure(
                source=renamed.removeprefix("upload:/"),
                error=_rename_error(result.error, path, name),
            )
        else:
            title = name if result.title in ("", Path(path).name, Path(path).stem) else result.title
            yield replace(result, source=renamed, title=title)


def _rename_error(error: ReadError, path: str, name: str) -> ReadError:
    message = error.message.replace(path, name).replace(Path(path).name, name)
    return ReadError(message, hint=error.hint, code=error.code, param=name)
