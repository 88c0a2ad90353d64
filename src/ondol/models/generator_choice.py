"""Which generator suits a machine, by its cores and memory. A pure function.

Figures (733-token prompt, 2-core Zen 4, prebuilt llama.cpp): prefill of 0.5B about 200 tokens/s, of
1.5B about 90, of SmolLM2 135M about 370. An answer should begin within a few seconds.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ondol.core.machine import Machine
from ondol.models.catalogue import entry

_GB = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Choice:
    """A generator and, in one sentence, why."""

    model_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Rule:
    model_id: str
    cores: int
    free_bytes: int
    why: str
    only_if_pulled: bool = False


_RULES = (
    _Rule(
        "qwen2.5-7b-instruct",
        16,
        8 * _GB,
        "has the cores for the best answers, and it is already here",
        only_if_pulled=True,
    ),
    _Rule(
        "qwen2.5-coder-1.5b-instruct",
        2,
        4 * _GB,
        "has room for the model that answered twice as many questions right as the smaller one",
    ),
    _Rule("qwen2.5-coder-0.5b-instruct", 1, 1_200_000_000, "needs the small model to answer soon"),
    _Rule("smollm2-135m-instruct", 1, 0, "has room for nothing larger; it knows only English"),
)


def choose_generator(machine: Machine, *, available: Collection[str] = ()) -> Choice:
    """Return the best generator for ``machine``; ``available`` are the ids that are ready here.

    A model that is here already needs only the memory it takes, not memory to spare, so that a
    choice made when pulling still holds when serving. When the best one is not here but another
    is, that one is chosen and the reason names the better one.
    """
    best = next((rule for rule in _RULES if _suits(rule, machine, available)), _RULES[-1])
    if best.model_id not in available:
        for rule in _RULES:
            if rule.model_id in available:
                return Choice(
                    model_id=rule.model_id,
                    reason=f"it is here; {best.model_id} would suit this machine better: "
                    f"ondol models pull {best.model_id}",
                )
    return Choice(model_id=best.model_id, reason=_reason(machine, best.why))


def _suits(rule: _Rule, machine: Machine, available: Collection[str]) -> bool:
    needed = rule.free_bytes
    if rule.model_id in available:
        needed = min(needed, entry(rule.model_id).memory_bytes)
    elif rule.only_if_pulled:
        return False
    return machine.cores >= rule.cores and machine.free_bytes >= needed


def _reason(machine: Machine, why: str) -> str:
    cores = "1 core" if machine.cores == 1 else f"{machine.cores} cores"
    return f"this machine, with {cores} and {machine.free_bytes / _GB:.1f} GB free, {why}"
