"""Ondol: the inference engine for private RAG on one modest box.

The public surface is ``__all__``: settings, the container that builds everything from them, the
error tree's root, and the version. Names load on first use, so that ``import ondol`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ondol.app.container import Container
    from ondol.core.errors import OndolError
    from ondol.core.settings import Settings, load_settings

__version__ = "0.1.0"

__all__ = ["Container", "OndolError", "Settings", "__version__", "load_settings"]

_HOMES = {
    "Container": "ondol.app.container",
    "OndolError": "ondol.core.errors",
    "Settings": "ondol.core.settings",
    "load_settings": "ondol.core.settings",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
