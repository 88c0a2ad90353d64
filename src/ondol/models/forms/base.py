"""What a runtime must do to give models a form: say what it can make, make it, load it.

A *maker* stands for one runtime (``onnx``, ``openvino``, …) and is one file of this room; the table
in ``forms`` lists them. Makers import their library only when they build or load. Where files lie
under their final names, locks and the manifest are not theirs but ``convert``'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from ondol.backends.base import Encoder, EncoderSpec
from ondol.core.types import Encoded, Pair
from ondol.kernels.bert import BertWeights
from ondol.models.catalogue import CatalogueEntry
from ondol.models.form import Form
from ondol.models.weights import read_weights

_TRIMMED_TOKENIZER = "tokenizer.trimmed.json"


@dataclass(frozen=True, slots=True)
class Lack:
    """Why a form cannot run here, as a clause, and the remedy."""

    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class FormSource:
    """The folder of a pulled model, from which its forms are made."""

    entry: CatalogueEntry
    folder: Path

    @property
    def tokenizer(self) -> Path:
        """The tokenizer as it was fetched."""
        found = self.entry.file("tokenizer")
        return self.folder / (found.name if found else "tokenizer.json")

    def tokenizer_of(self, form: Form) -> Path:
        """Return the tokenizer that goes with ``form``: the fetched one, or the one cut from it."""
        return self.folder / _TRIMMED_TOKENIZER if form.trimmed else self.tokenizer

    def files_of(self, form: Form, *names: str) -> tuple[Path, ...]:
        """Return the paths of ``names``, and last that of a trimmed form's tokenizer."""
        own = (_TRIMMED_TOKENIZER,) if form.trimmed else ()
        return tuple(self.folder / name for name in (*names, *own))

    def weights(self) -> BertWeights:
        """Open the fetched weights; raises ``ModelError``."""
        return read_weights(self.entry, self.folder)

    def weights_of(self, form: Form, targets: tuple[Path, ...]) -> BertWeights:
        """Open the weights that ``form`` is made of; raises ``ModelError``.

        A trimmed form's tokenizer is written to the last of ``targets``.
        """
        weights = self.weights()
        if not form.trimmed:
            return weights
        from ondol.kernels.vocabulary import trim

        return trim(weights, self.tokenizer, target=targets[-1]).weights

    def calibration_items(
        self, form: Form, targets: tuple[Path, ...], weights: BertWeights
    ) -> list[Encoded]:
        """Return our calibration texts as the model will meet them when it runs as ``form``."""
        from ondol.backends.tokenizer import TextTokenizer
        from ondol.kernels.calibration import LONGEST, calibration_inputs

        entry = self.entry
        tokenizer = TextTokenizer(
            targets[-1] if form.trimmed else self.tokenizer,
            model=entry.id,
            max_tokens=min(entry.max_tokens, weights.shape.positions),
        )
        inputs = calibration_inputs(
            pairs=entry.role == "reranker",
            prefixes=(entry.query_prefix, entry.document_prefix),
            korean=bool({"ko", "multilingual"} & set(entry.languages)),
        )
        items = [text if isinstance(text, str) else Pair(*text) for text in inputs]
        return [
            Encoded(ids=item.ids[:LONGEST], type_ids=item.type_ids[:LONGEST])
            for item in tokenizer.tokenize(items, truncate=True)
            if isinstance(item, Encoded)
        ]


@dataclass(frozen=True, slots=True)
class FormSetup:
    """How a form is to be loaded. ``gpu_memory_fraction`` is of one device's memory, 0 to 1."""

    spec: EncoderSpec
    threads: int
    gpu_memory_fraction: float = 1.0


class FormMaker(Protocol):
    """One runtime.

    ``version`` goes up when what ``build`` writes changes: older files are then made anew.
    ``makes`` names the forms it can make of a model on a machine that has everything; ``lacks``
    says why one of them cannot run here, or ``None``. ``files`` are the paths of a form's files,
    the one to open first (none where the form is made while loading); ``build`` writes them to
    ``targets``, part files in the same order. ``build`` and ``load`` raise ``ModelError``,
    ``OSError``, ``ValueError`` or ``MemoryError``.
    """

    @property
    def runtime(self) -> str: ...
    @property
    def version(self) -> int: ...
    def makes(self, entry: CatalogueEntry) -> tuple[str, ...]: ...
    def lacks(self, form: Form) -> Lack | None: ...
    def files(self, source: FormSource, form: Form) -> tuple[Path, ...]: ...
    def build(self, source: FormSource, form: Form, targets: tuple[Path, ...]) -> None: ...
    def load(self, source: FormSource, form: Form, setup: FormSetup) -> Encoder: ...


def missing_extra(library: str, *, extra: str) -> Lack | None:
    """Return the lack of ``library``, naming the extra that installs it; it is not imported."""
    try:
        there = find_spec(library) is not None
    except ValueError:  # a stand-in in sys.modules without a spec
        there = False
    if there:
        return None
    return Lack(f"{library} is not installed", f'pip install "ondol[{extra}]"')
