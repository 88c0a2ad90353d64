"""Short names of laws, each with the full name it stands for: 근기법 for 근로기준법.

Both sides are kept squeezed: letters and digits only, so that spacing and middle dots do not
matter. The list that comes with the package is ``law_names.toml``; a user's file has its form.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ondol.core.errors import InvalidInput
from ondol.language.dictionary import read_user_file
from ondol.language.normalise import folded

_HINT = 'write lines such as "근로기준법" = ["근기법", "근기"]'


def squeezed(name: str) -> str:
    """Return the letters and digits of ``name``: ``일ㆍ가정 양립`` becomes ``일가정양립``."""
    # The middle dot of statutes, U+318D, is a letter to Unicode.
    return "".join(char for char in folded(name) if char.isalnum() and char != "ㆍ")


@cache
def full_names() -> Mapping[str, tuple[str, ...]]:
    """Return full name → short names, as they are written, of the laws that come with the package."""
    text = (resources.files("ondol.packs.legal") / "law_names.toml").read_text("utf-8")
    found = tomllib.loads(text)
    return MappingProxyType({full: tuple(shorts) for full, shorts in found.items()})


@cache
def law_names() -> Mapping[str, str]:
    """Return squeezed short name → full name of the laws that come with the package."""
    return MappingProxyType(_pairs({k: list(v) for k, v in full_names().items()}, "law_names.toml"))


def read_law_names(path: Path) -> dict[str, str]:
    """Return short name → full name from a TOML file of full names with lists of short ones.

    Raises ``NotFound`` where there is no such file and ``InvalidInput`` for one of another form.
    """
    try:
        found = tomllib.loads(read_user_file(path, hint=_HINT))
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{path} is not valid TOML: {error}", hint=_HINT) from None
    return _pairs(found, str(path))


def given_names(names: object) -> dict[str, str]:
    """Return short → full name from a collection's metadata: ``{"법규": "근로기준법"}``.

    Metadata is the user's own: what is no text there is passed over.
    """
    if not isinstance(names, Mapping):
        return {}
    pairs = ((squeezed(str(short)), full) for short, full in names.items())
    return {short: squeezed(full) for short, full in pairs if short and isinstance(full, str)}


def _pairs(found: Mapping[str, Any], source: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for full, shorts in found.items():
        if not isinstance(shorts, list) or not all(isinstance(short, str) for short in shorts):
            raise InvalidInput(f"{source}: {full!r} has no list of short names", hint=_HINT)
        pairs |= {squeezed(short): squeezed(full) for short in shorts if squeezed(short)}
    return pairs
