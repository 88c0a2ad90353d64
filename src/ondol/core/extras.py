"""Libraries that only an optional extra brings: imported late, and missed by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

from ondol.core.errors import SettingsError


def install_command(extra: str) -> str:
    """Return the command that adds ``extra``, for the way in which Ondol is installed here."""
    if _from_checkout():
        return f'in the checkout: pip install -e ".[{extra}]"'
    return f'pip install "ondol[{extra}]"'


def _from_checkout() -> bool:
    """Whether this runs from a checkout: installed as editable, or not installed at all."""
    try:
        origin = metadata.distribution("ondol").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return True
    return origin is not None and bool(json.loads(origin).get("dir_info", {}).get("editable"))


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a failing import inside the block into an error that names the ``extra``.

    >>> with needs_extra("lab"):
    ...     from scipy.optimize import minimize

    Raises ``SettingsError`` where the library is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise SettingsError(
            f"this needs {error.name or 'a library'}, which is not installed",
            hint=install_command(extra),
        ) from error
