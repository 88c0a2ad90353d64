"""A form: one way to run a model, written ``runtime:precision[@device][+trimmed]``.

Owns the syntax only; what a model can run as is for ``loading`` to say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ondol.core.errors import ModelError

_SYNTAX = re.compile(r"([a-z]+):([a-z0-9_-]+)(?:@([a-z0-9]+))?(\+trimmed)?")


@dataclass(frozen=True, slots=True)
class Form:
    """``onnx:int8`` is runtime ``onnx``, precision ``int8``; ``trimmed`` has a cut vocabulary."""

    runtime: str
    precision: str
    device: str = "cpu"
    trimmed: bool = False

    def __str__(self) -> str:
        device = "" if self.device == "cpu" else f"@{self.device}"
        return f"{self.runtime}:{self.precision}{device}{'+trimmed' if self.trimmed else ''}"

    @property
    def file_stem(self) -> str:
        """A name for the form's file that is safe on every file system."""
        return str(self).replace(":", "-").replace("@", "-").replace("+", "-")


def parse_form(text: str) -> Form:
    """Read a form's name. Raises ``ModelError`` when it is not one."""
    found = _SYNTAX.fullmatch(text)
    if found is None:
        raise ModelError(
            f"{text!r} is not the name of a form",
            hint="a form is runtime:precision, for example onnx:int8 or torch:fp16@cuda",
            param="models.form",
        )
    runtime, precision, device, trimmed = found.groups()
    return Form(runtime, precision, device or "cpu", trimmed is not None)
