"""The forms an encoder can run in: one maker a runtime, and the table of them.

A new runtime is one file here and one line in ``makers``.
"""

from __future__ import annotations

from functools import cache

from ondol.core.errors import ModelError
from ondol.models.catalogue import CatalogueEntry
from ondol.models.form import Form, parse_form
from ondol.models.forms.base import FormMaker, Lack

REFERENCE = "onnx:fp32"
"""The form every other is measured against: each weight at its full value, float32 throughout."""


@cache
def makers() -> dict[str, FormMaker]:
    """Return the makers by runtime, in the order in which their forms are listed."""
    from ondol.models.forms.native import NativeForms
    from ondol.models.forms.onnx import OnnxForms
    from ondol.models.forms.openvino import OpenVinoForms
    from ondol.models.forms.torch import TorchForms

    table: tuple[FormMaker, ...] = (
        NativeForms(),
        OnnxForms(),
        OpenVinoForms(),
        TorchForms(),
    )
    return {maker.runtime: maker for maker in table}


def maker_of(form: Form) -> FormMaker:
    """Return the maker of ``form``. Raises ``ModelError`` when no runtime has its name."""
    found = makers().get(form.runtime)
    if found is None:
        raise ModelError(
            f"there is no runtime {form.runtime!r} for the form {form}",
            hint=f"there are {', '.join(makers())}",
            param="models.form",
        )
    return found


def every_form(entry: CatalogueEntry) -> tuple[str, ...]:
    """Return all forms of an encoder on a machine that has everything, the catalogue's first."""
    made = [form for maker in makers().values() for form in maker.makes(entry)]
    return tuple(dict.fromkeys([*entry.forms, *made]))


def lack_of(form: str) -> Lack | None:
    """Return why ``form`` cannot run on this machine, or ``None``."""
    parsed = parse_form(form)
    return maker_of(parsed).lacks(parsed)
