"""Which form a generator runs in, with which chunk, and why: a pure function.

A form that is named wins; then, where ``models.optimize`` is ``auto``, what ``ondol tune`` measured
here; then a native build, which the user asked for by making it; then the portable wheel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ondol.core.machine import Machine
from ondol.models.library import ModelFiles
from ondol.models.prefill import chunk_tokens, estimated_rate
from ondol.models.profile import (
    GENERATOR_LIBRARIES,
    Chosen,
    ModelProfile,
    ProfileKey,
    Purpose,
    fingerprint_of,
    library_versions,
)

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
class Known:
    """What is known before choosing: the machine, the weights in bytes, and the tuned profile."""

    cores: int
    weight_bytes: int
    offered: Sequence[str]
    profile: ModelProfile | None = None


def choose_generator_form(
    known: Known,
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


def _form(known: Known, wanted: str, measured: Chosen | None) -> tuple[str, str]:
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
