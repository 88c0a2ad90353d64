"""Which form a model runs in, and why: a pure function of settings, profile and machine.

A form that is named wins; then ``optimize``: ``off`` is the reference form, ``recipe`` the usual
advice (half precision on a GPU, 8-bit on a CPU), ``auto`` what ``ondol tune`` measured here, else the
catalogue's first. Loads nothing and measures nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ondol.models.profile import Chosen

Optimize = Literal["auto", "recipe", "off"]

_RECIPE = {
    "torch:fp16@cuda": "half precision on the GPU",
    "onnx:int8": "8-bit on the CPU",
}


@dataclass(frozen=True, slots=True)
class FormChoice:
    """How an encoder runs; 0 (``threads``, ``token_budget``) leaves it to the settings."""

    form: str
    reason: str
    threads: int = 0
    token_budget: int = 0


def choose_form(
    offered: Sequence[str],
    *,
    reference: str,
    wanted: str = "auto",
    optimize: Optimize = "auto",
    measured: Chosen | None = None,
) -> FormChoice:
    """Return the form to run among ``offered`` (what this machine can run, the default first).

    ``wanted`` is the form that the settings name, or ``auto``; ``measured`` is what the profile says
    for this machine, model and purpose. A named form is taken as it is, offered or not: whether it
    can run shows when it loads.
    """
    if wanted != "auto":
        return FormChoice(wanted, "named in the settings")
    if optimize == "off":
        return FormChoice(reference, "optimize = off: the reference form")
    if optimize == "recipe":
        return _by_recipe(offered, reference=reference)
    if measured is not None:
        return FormChoice(
            form=measured.form,
            reason="the fastest that passed the fidelity gate on this machine (ondol tune)",
            # One encoder serves: streams that were measured side by side become its threads.
            threads=measured.threads * measured.streams,
            token_budget=measured.token_budget,
        )
    return FormChoice(
        offered[0], "the catalogue's default; not tuned on this machine (run ondol tune)"
    )


def _by_recipe(offered: Sequence[str], *, reference: str) -> FormChoice:
    for form, why in _RECIPE.items():
        if form in offered:
            return FormChoice(form, f"optimize = recipe: {why}")
    return FormChoice(reference, "optimize = recipe, but the model has no such form: the reference")
