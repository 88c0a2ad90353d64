"""Which form a generator runs in, with which chunk, and why: a pure function.

A form that is named wins; then, where ``models.optimize`` is ``auto``, what ``ondol tune`` measured
here; then a native build, which the user asked for by making it; then the portable wheel.

Which generator suits a machine, by its cores and memory. A pure function.

Figures (733-token prompt, 2-core Zen 4, prebuilt llama.cpp): prefill of 0.5B about 200 tokens/s, of
1.5B about 90, of SmolLM2 135M about 370. An answer should begin within a few seconds.

How fast a generator reads prompts, before that was measured, and how large its chunks may be.

Between two chunks of somebody's prompt the other slots decode one token each, and a cancelled
request is noticed: so a chunk may take about a quarter of a second. Pure functions.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ondol.core.machine import Machine
from ondol.models.catalogue import entry
from ondol.models.library import ModelFiles
from ondol.models.profile import (
    GENERATOR_LIBRARIES,
    Chosen,
    ModelProfile,
    ProfileKey,
    Purpose,
    fingerprint_of,
    library_versions,
)

CHUNK_SECONDS = 0.25
"""How long the other slots may wait for one chunk."""

SMALLEST, LARGEST, STEP = 32, 512, 32
BYTES_PER_CORE_SECOND = 50e9
"""Weights read per core and second while prefilling, in bytes: llama.cpp on AVX2, Q4_K_M, 0.49 GB
203 tokens/s and 1.12 GB 91 tokens/s on two Zen 5 cores; a fifth less on Zen 4."""
FASTEST_PER_CORE = 200.0
"""Small models do not get faster for ever: 0.1 GB reads 370 tokens/s on two cores."""
NATIVE_GAIN = 1.35
"""What a native build gains with AVX-512 VNNI: 1.33 (1.12 GB) to 1.47 (0.49 GB) on Zen 4."""


def estimated_rate(weight_bytes: int, *, cores: int, native: bool = False) -> float:
    """Return about how many prompt tokens a second a generator reads; unknown weights count 1 GB."""
    rate = min(BYTES_PER_CORE_SECOND / (weight_bytes or 1e9), FASTEST_PER_CORE)
    return cores * rate * (NATIVE_GAIN if native else 1.0)


def chunk_tokens(rate: float) -> int:
    """Return the prefill chunk, in tokens, of a generator that reads ``rate`` tokens a second.

    The multiple of 32 nearest to a quarter of a second's, at least 32 and at most 512.
    """
    steps = round(CHUNK_SECONDS * rate / STEP)
    return min(LARGEST, max(SMALLEST, steps * STEP))


PORTABLE = "llamacpp:portable"
NATIVE = "llamacpp:native"


@dataclass(frozen=True, slots=True)
class GeneratorForm:
    """How a generator runs. ``prefill_rate`` is in tokens/s: measured, else estimated."""

    form: str
    reason: str
    threads: int
    batch_tokens: int
    prefill_rate: float


@dataclass(frozen=True, slots=True)
class KnownGenerator:
    """What is known before choosing: the machine, the weights in bytes, and the tuned profile."""

    cores: int
    weight_bytes: int
    offered: Sequence[str]
    profile: ModelProfile | None = None


def choose_generator_form(
    known: KnownGenerator,
    *,
    wanted: str = "auto",
    tuned: bool = True,
    purpose: Purpose = "chat",
    threads: int = 0,
    batch_tokens: int = 0,
) -> GeneratorForm:
    """Return how to run a generator; ``offered`` are the forms that can run here, best first.

    ``wanted``, ``threads`` and ``batch_tokens`` are the settings' own (``auto``, 0, 0 leave it to
    us); ``tuned`` says whether the profile may be used. A named form is taken as it is.
    """
    measured = known.profile.chosen.get(purpose) if known.profile and tuned else None
    if measured is not None and measured.form not in known.offered:
        measured = None  # a build that is gone, a library taken away
    form, reason = _form(known, wanted, measured)
    use = measured if measured is not None and measured.form == form else None
    rate = _measured_rate(known.profile, form) if tuned else 0.0
    native = form == NATIVE
    rate = rate or estimated_rate(known.weight_bytes, cores=known.cores, native=native)
    return GeneratorForm(
        form=form,
        reason=reason,
        threads=threads or (use.threads if use else known.cores),
        batch_tokens=batch_tokens or (use.token_budget if use else chunk_tokens(rate)),
        prefill_rate=rate,
    )


def generator_key(files: ModelFiles, *, machine: Machine, builds: Sequence[str] = ()) -> ProfileKey:
    """Return what a measurement of a generator holds for; ``builds`` are hashes of native builds."""
    versions = library_versions(GENERATOR_LIBRARIES)
    return ProfileKey(
        cpu=machine.cpu,
        cores=machine.cores,
        versions={**versions, **{f"build{n}": text for n, text in enumerate(builds)}},
        fingerprint=fingerprint_of(files),
    )


def _form(known: KnownGenerator, wanted: str, measured: Chosen | None) -> tuple[str, str]:
    if wanted != "auto":
        return wanted, "named in the settings"
    if measured is not None:
        return measured.form, "the fastest that agreed with the reference here (ondol tune)"
    if NATIVE in known.offered:
        return NATIVE, "it was built for this processor"
    return PORTABLE, "it runs on any processor; `ondol models build llamacpp` makes a faster one"


def _measured_rate(profile: ModelProfile | None, form: str) -> float:
    """Return the best long-prompt rate that was measured of ``form``, or 0."""
    rows = [row for row in (profile.evidence if profile else ()) if row.get("form") == form]
    return max((float(row.get("prefill_tokens_per_second") or 0.0) for row in rows), default=0.0)


_GB = 1_000_000_000


@dataclass(frozen=True, slots=True)
class GeneratorChoice:
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


def choose_generator(machine: Machine, *, available: Collection[str] = ()) -> GeneratorChoice:
    """Return the best generator for ``machine``; ``available`` are the ids that are ready here.

    A model that is here already needs only the memory it takes, not memory to spare, so that a
    choice made when pulling still holds when serving. When the best one is not here but another
    is, that one is chosen and the reason names the better one.
    """
    best = next((rule for rule in _RULES if _suits(rule, machine, available)), _RULES[-1])
    if best.model_id not in available:
        for rule in _RULES:
            if rule.model_id in available:
                return GeneratorChoice(
                    model_id=rule.model_id,
                    reason=f"it is here; {best.model_id} would suit this machine better: "
                    f"ondol models pull {best.model_id}",
                )
    return GeneratorChoice(model_id=best.model_id, reason=_reason(machine, best.why))


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
