"""Makes the forms a model can run in out of the weights that were fetched.

Owns the generic part: which form a name means here, whether its files are there, the lock, part
files and the manifest. How a form is made is its runtime's business (``forms``). Files are written
beside the weights as part files and renamed; a failed build leaves the download as it was.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from ondol.backends.protocols import as_model_error
from ondol.core.errors import ModelError
from ondol.models.catalogue import CatalogueEntry
from ondol.models.form import parse_form
from ondol.models.forms import FormSource, every_form, lack_of, maker_of
from ondol.models.manifest import BuiltForm, Manifest, locked, read_manifest, write_manifest

_BLOCK = 1 << 20


def resolve_form(entry: CatalogueEntry, form: str) -> str:
    """Return the form's full name; ``auto`` is the entry's first that can run here.

    Raises ``ModelError`` when the model has no such form, or it cannot run on this machine.
    """
    if entry.role == "generator":
        return _generator_form(entry, form)
    if form == "auto":
        return next((name for name in entry.forms if lack_of(name) is None), entry.forms[0])
    offered = every_form(entry)
    if form not in offered:
        raise _unknown(entry, str(parse_form(form)), offered)
    lack = lack_of(form)
    if lack is not None:
        raise ModelError(
            f"{entry.id} cannot run as {form} here: {lack.reason}",
            hint=lack.hint,
            param="models.form",
        )
    return form


def runs(entry: CatalogueEntry, folder: Path, manifest: Manifest) -> bool:
    """Whether one of the catalogue's forms is there and can run here, the default or another.

    A model stays usable when a new release, another processor or a newer maker wants a form that
    has not been made yet: it is made when it is first loaded.
    """
    if entry.role == "generator":
        return True
    here = (form for form in entry.forms if lack_of(form) is None)
    return any(has_form(entry, folder, manifest, form=form) for form in here)


def form_files(entry: CatalogueEntry, folder: Path, *, form: str) -> tuple[Path, ...]:
    """Return where the files of ``form`` lie (or will lie), the one to open first.

    Empty for a form that is made anew at each load.
    """
    if entry.role == "generator":
        return (folder / entry.weights.name,)
    parsed = parse_form(resolve_form(entry, form))
    return maker_of(parsed).files(FormSource(entry, folder), parsed)


def form_path(entry: CatalogueEntry, folder: Path, *, form: str) -> Path:
    """Return the file that ``form`` opens; the fetched weights where it has none of its own."""
    files = form_files(entry, folder, form=form)
    return files[0] if files else folder / entry.weights.name


def has_form(entry: CatalogueEntry, folder: Path, manifest: Manifest, *, form: str) -> bool:
    """Whether ``form`` is there, as large as it was when it was made."""
    paths = form_files(entry, folder, form=form)
    if all(_is_fetched(entry, path) for path in paths):
        return True
    parsed = parse_form(resolve_form(entry, form))
    built = manifest.form(str(parsed))
    if built is None or built.version != maker_of(parsed).version:
        return False
    if not all(path.is_file() for path in paths):
        return False
    return sum(path.stat().st_size for path in paths) == built.bytes


def ensure_form(entry: CatalogueEntry, folder: Path, *, form: str, lock: Path) -> Path:
    """Return the file of ``form``, making it first when it is not there.

    A form that is there needs no lock, so a read-only models folder serves.

    Raises ``ModelError`` when the weights are damaged or the form cannot be made.
    """
    manifest = read_manifest(folder)
    if manifest is not None and has_form(entry, folder, manifest, form=form):
        return form_path(entry, folder, form=form)
    with locked(lock):
        manifest = read_manifest(folder)
        if manifest is None:
            raise ModelError(
                f"{folder} has no manifest: {entry.id} is not whole",
                hint=f"ondol models pull {entry.id}",
            )
        if not has_form(entry, folder, manifest, form=form):
            write_manifest(folder, manifest.with_form(build_form(entry, folder, form=form)))
    return form_path(entry, folder, form=form)


def build_form(entry: CatalogueEntry, folder: Path, *, form: str) -> BuiltForm:
    """Make ``form`` from the weights in ``folder``; the caller holds the model's lock.

    A form of several files is recorded under the one it opens, with the size and hash of all.
    """
    started = time.perf_counter()
    full = resolve_form(entry, form)
    parsed = parse_form(full)
    source = FormSource(entry, folder)
    maker = maker_of(parsed)
    targets = maker.files(source, parsed)
    parts = tuple(path.with_name(f"{path.stem}.part{path.suffix}") for path in targets)
    try:
        with as_model_error():
            maker.build(source, parsed, parts)
        for part in parts:
            _flush(part)
        size, digest = sum(part.stat().st_size for part in parts), _digest(parts)
        for part, target in zip(reversed(parts), reversed(targets), strict=True):
            os.replace(part, target)
    except (OSError, ValueError, MemoryError) as error:
        raise ModelError(
            f"{entry.id} could not be converted to {full}: {error or type(error).__name__}",
            hint="the download is kept; free memory or disk and run "
            f"`ondol models pull {entry.id}` again",
        ) from error
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    return BuiltForm(
        form=full,
        name=targets[0].name,
        bytes=size,
        sha256=digest,
        seconds=round(time.perf_counter() - started, 3),
        version=maker.version,
    )


def _generator_form(entry: CatalogueEntry, form: str) -> str:
    if form == "auto":
        return entry.forms[0]
    if form not in entry.forms:
        raise _unknown(entry, form, entry.forms)
    return form


def _unknown(entry: CatalogueEntry, form: str, offered: tuple[str, ...]) -> ModelError:
    return ModelError(
        f"{entry.id} cannot run as {form!r}; it can run as {', '.join(offered)}",
        hint="set models.form to 'auto' or to one of these",
        param="models.form",
    )


def _is_fetched(entry: CatalogueEntry, path: Path) -> bool:
    return path.name in {file.name for file in entry.files}


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _digest(paths: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()
