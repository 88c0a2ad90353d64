"""The forms an encoder can run in: one maker a runtime, and the table of them.

A new runtime is one file here and one line in ``makers``.

What a runtime must do to give models a form: say what it can make, make it, load it.

A *maker* stands for one runtime (``onnx``, ``openvino``, …) and is one file of this room; the table
in ``forms`` lists them. Makers import their library only when they build or load. Where files lie
under their final names, locks and the manifest are not theirs but ``convert``'s.

``native:int8`` (and ``+trimmed``): our own 8-bit kernels, for x86 processors with AVX512-VNNI and AVX512-BF16.

Weights are rounded against texts of our own when the form is made; activations are quantised per
token when it runs. Built with the package where there is a C compiler (``hatch_build.py``).

Forms on ONNX Runtime: built from the weights, or the file as it was shipped.

``onnx:fp32`` is the reference of every encoder. ``onnx:int8`` is built with per-token scales, except
for models that come as 8-bit ONNX: theirs is the shipped file, untouched.

Forms on OpenVINO's CPU plugin, built from the weights; needs the extra ``openvino``.

``fp32``; ``bf16`` on processors that multiply it; ``int8-weights`` (activations stay as they are);
``int8`` (static: activation ranges are fitted when the form is made, on texts of our own).

Forms on PyTorch, made from the weights at each load; needs the extra ``torch``.

``fp32``, ``bf16`` and ``fp16`` on the CPU (half precision there saves memory and is slow without
native support) and, where there is an NVIDIA device, on ``@cuda``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

from ondol.backends.protocols import EncoderBackend, EncoderSpec
from ondol.core.errors import ModelError
from ondol.core.extras import install_command
from ondol.core.types import Encoded, Pair
from ondol.kernels.bert import BertShape, BertWeights, as_float
from ondol.kernels.calibration.static_int8 import StaticInt8
from ondol.kernels.packed_encoder import is_built
from ondol.kernels.processor import NEEDED_FLAGS, cpu_flags, processor_suits, weight_levels
from ondol.models.catalogue import CatalogueEntry
from ondol.models.form import Form, parse_form
from ondol.models.manifest import read_weights

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
    def load(self, source: FormSource, form: Form, setup: FormSetup) -> EncoderBackend: ...


def missing_extra(library: str, *, extra: str) -> Lack | None:
    """Return the lack of ``library``, naming the extra that installs it; it is not imported."""
    try:
        there = find_spec(library) is not None
    except ValueError:  # a stand-in in sys.modules without a spec
        there = False
    if there:
        return None
    return Lack(f"{library} is not installed", install_command(extra))


REFERENCE = "onnx:fp32"
"""The form every other is measured against: each weight at its full value, float32 throughout."""


@cache
def makers() -> dict[str, FormMaker]:
    """Return the makers by runtime, in the order in which their forms are listed."""

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

    def load(self, source: FormSource, form: Form, setup: FormSetup) -> EncoderBackend:
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


_LARGEST_GRAPH = 2_000_000_000
"""Protobuf cannot hold more than 2 GiB in one file."""


class OnnxForms:
    """``onnx:int8``, ``onnx:fp32``, and ``onnx:int8+trimmed`` where the vocabulary can be cut."""

    runtime = "onnx"
    version = 1

    def makes(self, entry: CatalogueEntry) -> tuple[str, ...]:
        trimmed = ("onnx:int8+trimmed",) if entry.trimmable else ()
        return ("onnx:int8", "onnx:fp32", *trimmed)

    def lacks(self, form: Form) -> Lack | None:
        return None

    def files(self, source: FormSource, form: Form) -> tuple[Path, ...]:
        if _as_shipped(source.entry, form):
            return (source.folder / source.entry.weights.name,)
        trimmed = "-trimmed" if form.trimmed else ""
        return source.files_of(form, f"model.{form.precision}{trimmed}.onnx")

    def build(self, source: FormSource, form: Form, targets: tuple[Path, ...]) -> None:
        """Write the graph with its weights to the first target."""
        from ondol.kernels.bert_graph import build_encoder

        entry, weights = source.entry, source.weights_of(form, targets)
        precision: Literal["fp32", "int8"] = "fp32" if form.precision == "fp32" else "int8"
        size = _graph_bytes(weights.shape, packed=entry.format == "e5s1", precision=precision)
        if size > _LARGEST_GRAPH:
            raise ModelError(
                f"{entry.id} as {form} needs {size:,} bytes; one ONNX file holds 2 GiB",
                hint="use models.form = 'onnx:int8'",
            )
        graph = build_encoder(
            weights,
            precision=precision,
            levels=weight_levels(),
            pooling="cls" if entry.pooling == "cls" else "mean",
        )
        targets[0].write_bytes(graph.SerializeToString(deterministic=True))

    def load(self, source: FormSource, form: Form, setup: FormSetup) -> EncoderBackend:
        from ondol.backends.onnx_encoder import OnnxEncoder

        return OnnxEncoder(
            self.files(source, form)[0],
            source.tokenizer_of(form),
            spec=setup.spec,
            threads=setup.threads,
            pooling=source.entry.pooling,
        )


def _as_shipped(entry: CatalogueEntry, form: Form) -> bool:
    return entry.format == "onnx" and form.precision == "int8" and not form.trimmed


def _graph_bytes(shape: BertShape, *, packed: bool, precision: Literal["fp32", "int8"]) -> int:
    table = shape.vocab * shape.hidden
    linear = shape.layers * (4 * shape.hidden**2 + 2 * shape.hidden * shape.ffn)
    per_word = 0.625 if packed else (4 if precision == "fp32" else 2)
    return int(table * per_word) + linear * (4 if precision == "fp32" else 1)


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

    def load(self, source: FormSource, form: Form, setup: FormSetup) -> EncoderBackend:
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


_TORCH_PRECISIONS: dict[str, Literal["fp16", "bf16", "fp32"]] = {
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
        on_gpu = tuple(f"torch:{precision}@cuda" for precision in _TORCH_PRECISIONS)
        return on_gpu + tuple(f"torch:{precision}" for precision in _TORCH_PRECISIONS)

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

    def load(self, source: FormSource, form: Form, setup: FormSetup) -> EncoderBackend:
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
            precision=_TORCH_PRECISIONS[form.precision],
            pooling="cls" if entry.pooling == "cls" else "mean",
            segments=shape.classifier and shape.types > 1,
            gpu_memory_fraction=setup.gpu_memory_fraction,
        )
