"""Whether requests can be served: the state of every component, from its loading to its running.

``/health/ready`` tells it. A component that fails to load becomes a state, so that what loaded can
serve; ``Loading.raise_first`` is for callers that need all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from ondol.core.clock import Clock
from ondol.core.errors import NotReady, OndolError
from ondol.core.observe import ModelStateChanged, Observer
from ondol.services.encoder_group import EncoderGroup
from ondol.services.generator_slot import GeneratorSlot
from ondol.services.slot import SlotState

_log = logging.getLogger("ondol.container")

UNLOADED = "unloaded while idle; the next request loads it"

Component = Literal["store", "embedder", "reranker", "keywords", "generator"]

Load = Callable[[], Awaitable[str]]
"""Loads one component and returns the id of its model, empty where it has none."""


@dataclass(frozen=True, slots=True)
class ComponentState:
    """One component: what it runs, and why it is not ready where it is not.

    ``fallback`` says why an encoder's ``form`` is not the one that was chosen.
    """

    state: Literal["off", "loading", "ready", "failed"]
    model: str = ""
    reason: str = ""
    seconds: float = 0.0
    form: str = ""
    fallback: str = ""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether requests can be served: every component that is not off is ready."""

    ready: bool
    components: dict[str, ComponentState]


def state_of_encoders(group: EncoderGroup, loaded: ComponentState) -> ComponentState:
    """Return the component's state from its slots: cold counts as ready, the next request loads."""
    slots = group.slots
    failed = next((slot for slot in slots if slot.state is SlotState.FAILED), None)
    state = replace(
        loaded,
        form=slots[0].form,
        fallback="; ".join(dict.fromkeys(slot.fallback for slot in slots if slot.fallback)),
    )
    if failed is not None:
        return replace(state, state="failed", reason=failed.error)
    if all(slot.state is SlotState.COLD for slot in slots):
        return replace(state, reason=UNLOADED)
    return state


def state_of_generator(slot: GeneratorSlot, loaded: ComponentState) -> ComponentState:
    """Return the generator's state from its slot and, where it is loaded, from its process."""
    if slot.state is SlotState.FAILED:
        return replace(loaded, state="failed", reason=str(slot.failure))
    health = slot.health()
    if health is None:
        return replace(loaded, reason=UNLOADED)
    if health.ready:
        return loaded
    return ComponentState(
        "failed" if health.state == "failed" else "loading",
        model=loaded.model,
        reason=f"{health.state}: {health.reason}".strip(": "),
    )


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
