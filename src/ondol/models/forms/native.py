"""``native:int8`` (and ``+trimmed``): our own 8-bit kernels, for x86 processors with AVX512-VNNI and AVX512-BF16.

Weights are rounded against texts of our own when the form is made; activations are quantised per
token when it runs. Built with the package where there is a C compiler (``hatch_build.py``).
"""

from __future__ import annotations

from pathlib import Path

from ondol.backends.base import Encoder
from ondol.core.errors import ModelError
from ondol.kernels.packed_encoder import is_built
from ondol.kernels.processor import NEEDED_FLAGS, processor_suits
from ondol.models.catalogue import CatalogueEntry
from ondol.models.form import Form
from ondol.models.forms.base import FormSetup, FormSource, Lack


class NativeForms:
    """``native:int8``, and with a cut vocabulary where the model's can be cut."""

    runtime = "native"
    version = 1

    def makes(self, entry: CatalogueEntry) -> tuple[str, ...]:
        trimmed = ("native:int8+trimmed",) if entry.trimmable else ()
        return ("native:int8", *trimmed)

    def lacks(self, form: Form) -> Lack | None:
        if not processor_suits():
            needed = ", ".join(sorted(NEEDED_FLAGS))
            return Lack(f"this processor lacks one of {needed}", "use onnx:int8")
        if not is_built():
            return Lack(
                "the C kernels were not compiled", "install a C compiler, then install Ondol anew"
            )
        return None

    def files(self, source: FormSource, form: Form) -> tuple[Path, ...]:
        return source.files_of(form, f"{form.file_stem}.bin")

    def build(self, source: FormSource, form: Form, targets: tuple[Path, ...]) -> None:
        from ondol.kernels.packed_weights import TextSettings, write_packed

        entry, weights = source.entry, source.weights_of(form, targets)
        texts = TextSettings(
            tokenizer=source.tokenizer_of(form).name,
            pooling="cls" if entry.pooling == "cls" else "mean",
            query_prefix=entry.query_prefix,
            document_prefix=entry.document_prefix,
        )
        items = source.calibration_items(form, targets, weights)
        write_packed(weights, items, targets[0], texts=texts)

    def load(self, source: FormSource, form: Form, setup: FormSetup) -> Encoder:
        from ondol.backends.native_encoder import NativeEncoder
        from ondol.kernels.packed_weights import read_packed

        path = self.files(source, form)[0]
        try:
            packed = read_packed(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"{source.entry.id} ({form}) cannot be read: {error}",
                hint=f"fetch it anew: ondol models pull {source.entry.id} --force",
            ) from error
        return NativeEncoder(
            packed,
            source.tokenizer_of(form),
            spec=setup.spec,
            threads=setup.threads,
            first_token=source.entry.pooling == "cls" or packed.shape.classifier,
        )
