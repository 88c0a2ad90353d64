"""Libraries that only an optional extra brings: imported late, and missed by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ondol.core.errors import SettingsError


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
            hint=f'pip install "ondol[{extra}]"',
        ) from error
