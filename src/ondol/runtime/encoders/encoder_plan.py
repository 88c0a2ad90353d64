"""What an encoder is to run as, and loading it with the reference form to fall back on.

An ``EncoderSource`` knows where a model's forms come from; this knows only the order: the form that
was chosen, else the reference form. Everything here blocks while weights load.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ondol.backends.protocols import EncoderBackend
from ondol.core.errors import BackendError, ModelError, OndolError
from ondol.core.events import FormFellBack, Observer
from ondol.core.types import ModelRole, Pair
from ondol.models.form_choice import FormChoice

_log = logging.getLogger("ondol.encoders")


@dataclass(frozen=True, slots=True)
class EncoderPlan:
    """Which forms one model runs in here; ``bulk`` is set where bulk work has a form of its own.

    ``space`` names what vectors are comparable within: two plans of one space give vectors (or
    scores) that mean the same, up to the loss of their forms.
    """

    model: str
    role: ModelRole
    query: FormChoice
    reference: FormChoice
    bulk: FormChoice | None = None
    query_prefix: str = ""
    document_prefix: str = ""
    languages: tuple[str, ...] = ()
    space: str = ""


class EncoderSource(Protocol):
    """One model that can be loaded in several forms; all methods block.

    ``plan`` chooses (``form`` overrides the settings) and raises ``NotFound`` where the model is not
    here. ``encoder`` makes and loads one form and raises whatever that meets. ``weight_bytes`` is the
    size of the form's file, ``fidelity`` what was measured of it; 0 and empty where unknown.
    """

    def plan(self, *, form: str = "auto") -> EncoderPlan: ...
    def encoder(self, choice: FormChoice) -> EncoderBackend: ...
    def weight_bytes(self, form: str) -> int: ...
    def fidelity(self, form: str) -> Mapping[str, float]: ...


@dataclass(frozen=True, slots=True)
class LoadedEncoder:
    """An encoder that has run once. ``fallback`` says why it is not the form that was chosen."""

    encoder: EncoderBackend
    choice: FormChoice
    fallback: str = ""
    weight_bytes: int = 0
    fidelity: Mapping[str, float] = field(default_factory=dict)


def load_exactly(source: EncoderSource, choice: FormChoice) -> LoadedEncoder:
    """Load ``choice`` and run it once; raises what making, loading or running it meets."""
    encoder = source.encoder(choice)
    try:
        _warm(encoder)
    except BaseException:
        encoder.close()
        raise
    return LoadedEncoder(
        encoder=encoder,
        choice=choice,
        weight_bytes=source.weight_bytes(choice.form),
        fidelity=source.fidelity(choice.form),
    )


def load_or_fall_back(
    source: EncoderSource, choice: FormChoice, *, plan: EncoderPlan, observer: Observer
) -> LoadedEncoder:
    """Load ``choice``, or the plan's reference form when that fails; raises when both do."""
    reference = plan.reference
    try:
        return load_exactly(source, choice)
    except Exception as error:
        if choice.form == reference.form:
            raise
        reason = _reason(error)
        _log.warning(
            "%s cannot run as %s (%s); running the reference form %s",
            plan.model,
            choice.form,
            reason,
            reference.form,
        )
        observer.observe(
            FormFellBack(model=plan.model, wanted=choice.form, used=reference.form, reason=reason)
        )
        loaded = load_exactly(source, reference)
        return LoadedEncoder(
            encoder=loaded.encoder,
            choice=loaded.choice,
            fallback=f"{choice.form} failed: {reason}",
            weight_bytes=loaded.weight_bytes,
            fidelity=loaded.fidelity,
        )


def _warm(encoder: EncoderBackend) -> None:
    """Run one small batch: the first caller pays for no first-use work, a broken form shows now."""
    item: str | Pair = "온돌 warm-up"
    if encoder.spec.role == "reranker":
        item = Pair("온돌", "warm-up")
    encoded = encoder.tokenize([item], truncate=True)[0]
    if isinstance(encoded, OndolError):
        raise ModelError(
            f"{encoder.spec.model} cannot tokenise: {encoded}",
            hint=f"fetch it anew: ondol models pull {encoder.spec.model} --force",
        )
    rows = encoder.run([encoded])
    if rows.shape != (1, encoder.spec.dimensions):
        raise BackendError(
            f"{encoder.spec.model} ({encoder.spec.form}) returned the shape {rows.shape} for one "
            f"item of {encoder.spec.dimensions} dimensions",
            hint="run another form: set models.form",
        )


def _reason(error: Exception) -> str:
    if isinstance(error, OndolError):
        return f"{error.message} ({error.hint})" if error.hint else error.message
    return f"{type(error).__name__}: {error}"
