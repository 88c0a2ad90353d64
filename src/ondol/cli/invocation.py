"""One run of the command: global options, the settings they make, and the way to a container.

Holds what the options said; reads the settings once, when first asked. Tests hand in their own
container factory through click's ``obj``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ondol.cli.output import Output
from ondol.core.clock import Clock, SystemClock

if TYPE_CHECKING:
    from ondol.app.components import Parts
    from ondol.app.container import Container
    from ondol.core.settings import Settings
    from ondol.telemetry.logs import Level

T = TypeVar("T")


def _real_container(settings: Settings, parts: Parts) -> Container:
    from ondol.app.container import Container

    return Container.open(settings, parts=parts)


async def _heeding(work: Coroutine[Any, Any, T]) -> T:
    """Return what ``work`` returns, unless it was interrupted and went on to its end all the same.

    Library code below may take a cancellation for its own; the user's ctrl-C must still count.
    """
    import asyncio

    result = await work
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
    return result


@dataclass
class Invocation:
    """What the global options said. ``flags`` maps dotted settings to values, as typed."""

    open_container: Callable[[Settings, Parts], Container] = _real_container
    environ: Mapping[str, str] | None = None
    as_json: bool = False
    verbosity: int = 0
    config: Path | None = None
    flags: dict[str, Any] = field(default_factory=dict)
    clock: Clock = field(default_factory=SystemClock)

    @cached_property
    def settings(self) -> Settings:
        from ondol.core.settings import load_settings

        return load_settings(flags=self.flags, environ=self.environ, config=self.config)

    @cached_property
    def output(self) -> Output:
        return Output(as_json=self.as_json, stdout=sys.stdout, stderr=sys.stderr)

    def container(
        self,
        *,
        embedder: bool = False,
        reranker: bool = False,
        keywords: bool = False,
        generator: bool = False,
    ) -> Container:
        """Return a container of the named parts; they load on ``async with``."""
        from ondol.app.components import Parts

        parts = Parts(embedder=embedder, reranker=reranker, keywords=keywords, generator=generator)
        return self.open_container(self.settings, parts)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` to its end; ctrl-C cancels it, lets it clean up, then interrupts us."""
        import asyncio

        self.start_logging()
        return asyncio.run(_heeding(work))

    def start_logging(self) -> None:
        """Send log lines to stderr: warnings, with ``-v`` information, with ``-vv`` everything."""
        from ondol.telemetry.logs import configure_logging

        levels: tuple[Level, ...] = ("warning", "info", "debug")
        configure_logging(levels[min(self.verbosity, 2)], stream=sys.stderr, as_json=False)
