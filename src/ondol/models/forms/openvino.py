"""Forms on OpenVINO's CPU plugin, built from the weights; needs the extra ``openvino``.

``fp32``; ``bf16`` on processors that multiply it; ``int8-weights`` (activations stay as they are);
``int8`` (static: activation ranges are fitted when the form is made, on texts of our own).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ondol.backends.base import Encoder
from ondol.kernels.calibration.static_int8 import StaticInt8
from ondol.kernels.processor import cpu_flags, weight_levels
from ondol.models.catalogue import CatalogueEntry
from ondol.models.form import Form
from ondol.models.forms.base import FormSetup, FormSource, Lack, missing_extra

_PRECISIONS = ("int8", "int8-weights", "bf16", "fp32")
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


class OpenVinoForms:
    """``openvino:int8``, ``int8-weights``, ``bf16`` and ``fp32``."""

    runtime = "openvino"
    version = 1

    def makes(self, entry: CatalogueEntry) -> tuple[str, ...]:
        trimmed = ("openvino:int8+trimmed",) if entry.trimmable else ()
        return (*(f"openvino:{precision}" for precision in _PRECISIONS), *trimmed)

    def lacks(self, form: Form) -> Lack | None:
        missing = missing_extra("openvino", extra="openvino")
        if missing is None and form.precision == "bf16" and not _has_bf16():
            return Lack("this processor has no bfloat16 instructions", "use openvino:fp32")
        return missing

    def files(self, source: FormSource, form: Form) -> tuple[Path, ...]:
        # bf16 is fp32's file: the runtime rounds the weights as it packs them.
        precision = "fp32" if form.precision == "bf16" else form.precision
        stem = Form(form.runtime, precision, trimmed=form.trimmed).file_stem
        return source.files_of(form, f"{stem}.xml", f"{stem}.bin")

    def build(self, source: FormSource, form: Form, targets: tuple[Path, ...]) -> None:
        from ondol.kernels.openvino_graph import Precision, build_openvino
        from ondol.kernels.openvino_library import openvino

        weights = source.weights_of(form, targets)
        pooling: Literal["mean", "cls"] = "cls" if source.entry.pooling == "cls" else "mean"
        precision: Precision = "fp32"
        static: StaticInt8 | None = None
        if form.precision == "int8":
            from ondol.kernels.calibration.static_int8 import calibrate

            items = source.calibration_items(form, targets, weights)
            precision, static = "int8", calibrate(weights, items, levels=weight_levels())
        elif form.precision == "int8-weights":
            precision = "int8-weights"
        model = build_openvino(
            weights, precision=precision, pooling=pooling, static=static, levels=weight_levels()
        )
        openvino().serialize(model, str(targets[0]), str(targets[1]))

    def load(self, source: FormSource, form: Form, setup: FormSetup) -> Encoder:
        from ondol.backends.openvino_encoder import OpenVinoEncoder

        # Whatever is not 8-bit runs in bfloat16 where that is quick; fp32 means what it says.
        half = form.precision != "fp32" and _has_bf16()
        return OpenVinoEncoder(
            self.files(source, form)[0],
            source.tokenizer_of(form),
            spec=setup.spec,
            threads=setup.threads,
            half=half,
        )


def _has_bf16() -> bool:
    return bool(_BF16_FLAGS & cpu_flags())
