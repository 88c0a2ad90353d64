"""Our CPU encoder, usable without the rest of Ondol: weights, quantisation, and the C kernels.

    from pathlib import Path
    from ondol.kernels import Encoder, TextSettings, pack

    path = pack(Path("e5"), texts=TextSettings(query_prefix="query: ", document_prefix="passage: "))
    with Encoder.open(path) as encoder:
        vectors = encoder.encode(["온돌은 무엇인가?"], role="query")  # float32 (1, hidden)

The public surface is ``__all__``; names load on first use. Imports nothing of ``ondol``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ondol.kernels.encoder import Encoder, pack
    from ondol.kernels.kernel_error import KernelError
    from ondol.kernels.packed_weights import TextSettings

__all__ = ["Encoder", "KernelError", "TextSettings", "pack"]

_HOMES = {
    "Encoder": "ondol.kernels.encoder",
    "KernelError": "ondol.kernels.kernel_error",
    "TextSettings": "ondol.kernels.packed_weights",
    "pack": "ondol.kernels.encoder",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
