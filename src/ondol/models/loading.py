"""Turns the files of an encoder into a running backend, which is imported only then.

The door for everybody else: which forms a model has here, which is the reference, and loading one.
``auto`` is the first form of the catalogue that can run on this machine (docs/concepts/models.md
has the figures); what ``ondol tune`` measured is weighed elsewhere.
"""

from __future__ import annotations

from ondol.backends.protocols import EncoderBackend, EncoderSpec, as_model_error
from ondol.core.errors import ModelError
from ondol.models.catalogue import CatalogueEntry
from ondol.models.convert import ensure_form, resolve_form
from ondol.models.form import Form, parse_form
from ondol.models.forms import REFERENCE, FormSetup, FormSource, every_form, lack_of, maker_of
from ondol.models.library import ModelFiles
from ondol.models.profile import fingerprint_of


def reference_form(entry: CatalogueEntry) -> str:
    """Return the form that the entry's others are measured against; a generator's is its first."""
    return entry.forms[0] if entry.role == "generator" else REFERENCE


def available_forms(entry: CatalogueEntry) -> tuple[str, ...]:
    """Return the forms that can run on this machine, the default first.

    They are the catalogue's own, and those of every installed extra that this machine's processor
    and devices allow; the reference form is always among them. Nothing is imported or made.
    """
    if entry.role == "generator":
        return entry.forms
    default = resolve_form(entry, "auto")
    here = (form for form in every_form(entry) if lack_of(form) is None)
    return tuple(dict.fromkeys([default, *here, reference_form(entry)]))


def load_encoder(
    files: ModelFiles, *, form: str = "auto", threads: int, gpu_memory_fraction: float = 1.0
) -> EncoderBackend:
    """Load an embedder or reranker with ``threads`` threads, making ``form`` if it is missing.

    ``gpu_memory_fraction`` is how much of a GPU's memory this process may take, 0 to 1.

    Raises ``ModelError`` when the model is no encoder, has no such form, or cannot be loaded.
    """
    entry = files.entry
    if entry.role == "generator" or files.tokenizer_path is None:
        raise ModelError(
            f"{entry.id} is a {entry.role}, not an embedder or reranker",
            hint="see `ondol models list --role embedder`",
        )
    full = resolve_form(entry, form)
    ensure_form(entry, files.folder, form=full, lock=files.lock_path)
    parsed = parse_form(full)
    setup = FormSetup(
        spec=_spec(files, parsed), threads=threads, gpu_memory_fraction=gpu_memory_fraction
    )
    source = FormSource(entry, files.folder)
    with as_model_error():
        return maker_of(parsed).load(source, parsed, setup)


def _spec(files: ModelFiles, form: Form) -> EncoderSpec:
    entry = files.entry
    return EncoderSpec(
        model=entry.id,
        form=str(form),
        role=entry.role,
        dimensions=1 if entry.role == "reranker" else entry.dimensions or 0,
        max_tokens=entry.max_tokens,
        device=form.device,
        # A recipe that changes gives other vectors under the same form's name.
        fingerprint=f"{fingerprint_of(files)}-{maker_of(form).version}",
    )
