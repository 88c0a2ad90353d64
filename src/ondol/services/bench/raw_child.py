"""The raw baseline: the very llama.cpp process that a server would start, asked directly.

Built by the same factory from the same settings, so that model, slots, threads, context and batch
are the same; what is left out is everything of Ondol's between the client and it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ondol.backends.llamacpp_generator import LlamaCppGenerator
from ondol.core.errors import BackendError
from ondol.core.settings import Settings
from ondol.services.backend_factory import BackendFactory
from ondol.services.bench.load.plan import Target
from ondol.services.bench.server_child import tree_memory_mb


class RawChild:
    """A llama.cpp child and how to ask it."""

    def __init__(self, generator: LlamaCppGenerator) -> None:
        child = generator.child
        if child is None or child.endpoint is None:
            raise BackendError("llama.cpp has no address", hint="see its log with -v")
        self._pid = child.pid
        self.target = Target(
            child.endpoint.url,
            generator.spec.model,
            {"authorization": f"Bearer {child.endpoint.key}"},
        )

    def memory_mb(self, *, peak: bool = False) -> float:
        """Return its resident memory, now or at most."""
        return tree_memory_mb(self._pid, peak=peak)


@contextmanager
def raw_child(settings: Settings) -> Iterator[RawChild | None]:
    """Start the generator of ``settings`` without a server; ``None`` where it is not llama.cpp."""
    generator = BackendFactory(settings).generator(on_state=lambda _: None)
    try:
        yield RawChild(generator) if isinstance(generator, LlamaCppGenerator) else None
    finally:
        generator.close()
