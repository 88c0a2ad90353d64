"""Whether requests can be served: the state of every component, as ``/health/ready`` tells it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ondol.services.encoder_group import EncoderGroup
from ondol.services.slot_info import SlotState

UNLOADED = "unloaded while idle; the next request loads it"

Component = Literal["store", "embedder", "reranker", "keywords", "generator"]


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


def state_of(group: EncoderGroup, said: ComponentState) -> ComponentState:
    """Return the component's state from its slots: cold counts as ready, the next request loads."""
    slots = group.slots
    failed = next((slot for slot in slots if slot.state is SlotState.FAILED), None)
    found = replace(
        said,
        form=slots[0].form,
        fallback="; ".join(dict.fromkeys(slot.fallback for slot in slots if slot.fallback)),
    )
    if failed is not None:
        return replace(found, state="failed", reason=failed.error)
    if all(slot.state is SlotState.COLD for slot in slots):
        return replace(found, reason=UNLOADED)
    return found
