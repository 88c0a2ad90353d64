"""The components of a process while they load: who is wanted, who stands, who failed and why.

Failures become states, so that what loaded can serve; ``raise_first`` is for callers that need all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from ondol.core.clock import Clock
from ondol.core.errors import NotReady, OndolError
from ondol.core.observe import ModelStateChanged, Observer
from ondol.services.readiness import Component, ComponentState

_log = logging.getLogger("ondol.container")

Load = Callable[[], Awaitable[str]]
"""Loads one component and returns the id of its model, empty where it has none."""


class Loading:
    """``dispensable`` says of a component and an error whether the rest can do without it."""

    def __init__(
        self,
        *,
        dispensable: Callable[[str, Exception], bool],
        clock: Clock,
        observer: Observer,
    ) -> None:
        self.states: dict[str, ComponentState] = {}
        self._dispensable = dispensable
        self._failures: list[Exception] = []
        self._clock = clock
        self._observer = observer

    async def start(self, wanted: Mapping[str, tuple[bool, Load]]) -> None:
        """Load side by side what is wanted; the others are ``off``."""
        for name, (on, _) in wanted.items():
            self.states[name] = ComponentState("loading" if on else "off")
        await asyncio.gather(*(self._load(name, load) for name, (on, load) in wanted.items() if on))

    def raise_first(self) -> None:
        """Raise the first failure, if there was one."""
        for error in self._failures:
            raise error

    def absent(self, name: Component) -> NotReady:
        """Return what a request is told that needs a component which does not stand."""
        state = self.states.get(name, ComponentState("loading"))
        if state.state == "failed":
            return NotReady(
                f"the {name} could not be loaded: {state.reason}",
                retry_after=30,
                hint="see /health/ready, or run `ondol doctor`",
            )
        if state.state == "off":
            return NotReady(
                f"no {name} is loaded. {state.reason}".strip(),
                retry_after=60,
                hint="see `ondol doctor --settings`",
            )
        return NotReady(f"the {name} is still loading", retry_after=2, hint="try again shortly")

    async def _load(self, name: str, load: Load) -> None:
        started = self._clock.monotonic()
        try:
            model = await load()
        except Exception as error:
            if not isinstance(error, OndolError):
                _log.exception("%s failed to load", name)
            reason = f"{error} {getattr(error, 'hint', '')}".strip()
            if self._dispensable(name, error):
                _log.warning("doing without the %s: %s", name, reason)
                self.states[name] = ComponentState("off", reason=reason)
                return
            self.states[name] = ComponentState("failed", reason=reason)
            self._failures.append(error)
            self._observer.observe(ModelStateChanged(model=name, state="failed", reason=reason))
            return
        seconds = self._clock.monotonic() - started
        self.states[name] = ComponentState("ready", model=model, seconds=seconds)
        self._observer.observe(
            ModelStateChanged(model=model or name, state="ready", seconds=seconds)
        )
