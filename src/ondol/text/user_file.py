"""Reads the small text files that users give: names of laws, synonyms, dictionaries.

UTF-8, at most one megabyte; everything else is told in one sentence. What a file means is its
caller's.
"""

from __future__ import annotations

from pathlib import Path

from ondol.core.errors import InvalidInput, NotFound

MAX_BYTES = 1_000_000


def read_user_file(path: Path, *, hint: str) -> str:
    """Return the text of ``path``; ``hint`` says what such a file looks like.

    Raises ``NotFound`` where there is none, ``InvalidInput`` for one that is no text or too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist", hint="check the path", param=str(path)) from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}", hint=hint) from None
    if len(data) > MAX_BYTES:
        raise InvalidInput(f"{path} is larger than {MAX_BYTES:,} bytes", hint=hint)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is not UTF-8 text", hint=hint) from None
