"""Forms on PyTorch, made from the weights at each load; needs the extra ``torch``.

``fp32``, ``bf16`` and ``fp16`` on the CPU (half precision there saves memory and is slow without
native support) and, where there is an NVIDIA device, on ``@cuda``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ondol.backends.base import Encoder
from ondol.kernels.bert import as_float
from ondol.models.catalogue import CatalogueEntry
from ondol.models.form import Form
from ondol.models.forms.base import FormSetup, FormSource, Lack, missing_extra

_PRECISIONS: dict[str, Literal["fp16", "bf16", "fp32"]] = {
    "fp16": "fp16",
    "bf16": "bf16",
    "fp32": "fp32",
}
_NVIDIA = Path("/proc/driver/nvidia/version")


class TorchForms:
    """``torch:fp16``, ``bf16`` and ``fp32``, each also ``@cuda``."""

    runtime = "torch"
    version = 1

    def __init__(self, *, nvidia: Path = _NVIDIA) -> None:
        self._nvidia = nvidia

    def makes(self, entry: CatalogueEntry) -> tuple[str, ...]:
        on_gpu = tuple(f"torch:{precision}@cuda" for precision in _PRECISIONS)
        return on_gpu + tuple(f"torch:{precision}" for precision in _PRECISIONS)

    def lacks(self, form: Form) -> Lack | None:
        """See ``FormMaker``; looks for the driver, so that torch need not be imported to know."""
        missing = missing_extra("torch", extra="torch")
        if missing is None and form.device == "cuda" and not self._nvidia.exists():
            return Lack("no NVIDIA driver was found", "use a form without @cuda")
        return missing

    def files(self, source: FormSource, form: Form) -> tuple[Path, ...]:
        return ()

    def build(self, source: FormSource, form: Form, targets: tuple[Path, ...]) -> None:
        """Nothing to build."""

    def load(self, source: FormSource, form: Form, setup: FormSetup) -> Encoder:
        from ondol.backends.torch_encoder import TorchEncoder

        weights, entry = source.weights(), source.entry
        shape = weights.shape
        return TorchEncoder(
            source.tokenizer,
            matrix=lambda name: as_float(weights.matrix(name)),
            vector=weights.vector,
            layers=shape.layers,
            heads=shape.heads,
            eps=shape.eps,
            spec=setup.spec,
            threads=setup.threads,
            precision=_PRECISIONS[form.precision],
            pooling="cls" if entry.pooling == "cls" else "mean",
            segments=shape.classifier and shape.types > 1,
            gpu_memory_fraction=setup.gpu_memory_fraction,
        )
