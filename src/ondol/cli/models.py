"""``ondol models``: which weights there are, fetching them, and swapping them in a running server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import click

from ondol.cli.finetune import finetune
from ondol.cli.invocation import Invocation
from ondol.cli.options import global_options
from ondol.cli.output import human_bytes, plain
from ondol.cli.progress import meter

if TYPE_CHECKING:
    from ondol.models.catalogue import CatalogueEntry
    from ondol.models.library import ModelFiles, ModelLibrary, PullProgress


@dataclass(frozen=True, slots=True)
class Listed:
    """A catalogue entry as the list shows it; ``bytes`` is the size of its files."""

    id: str
    role: str
    title: str
    licence: str
    languages: tuple[str, ...]
    dimensions: int | None
    max_tokens: int
    bytes: int
    state: str
    default: bool


@dataclass(frozen=True, slots=True)
class Pulled:
    """A model that is ready, and where its files lie."""

    id: str
    folder: str
    bytes: int


@click.group()
@global_options()
def models() -> None:
    """List, fetch, fine-tune and reload model weights; build what runs them."""


models.add_command(finetune)


@models.command("list")
@click.option(
    "--role", type=click.Choice(["embedder", "reranker", "generator"]), help="Only this role."
)
@global_options()
@click.pass_obj
def list_models(invocation: Invocation, *, role: str | None) -> None:
    """List the catalogue, what of it is here, and the models made here."""
    library = invocation.container().library
    listed = [
        _listed(library, entry)
        for entry in library.entries().values()
        if role is None or entry.role == role
    ]
    output = invocation.output
    if output.as_json:
        output.data({"models": listed})
        return
    output.table(
        ("ID", "ROLE", "STATE", "SIZE", "LANGUAGES", "LICENCE"),
        [
            (
                model.id,
                model.role,
                model.state,
                human_bytes(model.bytes),
                ", ".join(model.languages),
                model.licence,
            )
            for model in listed
        ],
    )


@models.command()
@click.argument("model")
@global_options()
@click.pass_obj
def info(invocation: Invocation, *, model: str) -> None:
    """Show one model: its files, hashes and licence, its forms, and how it runs in the server."""
    from ondol.cli import model_info

    library = invocation.container().library
    found = library.entry(model)
    listed = _listed(library, found)
    forms = model_info.forms_of(invocation, found)
    running = model_info.running(invocation, found.id)
    output = invocation.output
    if output.as_json:
        output.data({**plain(found), **plain(listed), "runs_as": plain(forms), "running": running})
        return
    rows: list[tuple[str, object]] = [
        ("id", listed.id),
        ("title", listed.title),
        ("role", listed.role),
        ("state", listed.state),
        ("size", human_bytes(listed.bytes)),
        ("licence", listed.licence),
        ("languages", ", ".join(listed.languages)),
        ("max tokens", listed.max_tokens),
    ]
    if listed.dimensions is not None:
        rows.append(("dimensions", listed.dimensions))
    rows += [("file", f"{file.name}  sha256 {file.sha256}") for file in found.files]
    rows += model_info.form_rows(forms)
    if running is not None:
        rows += model_info.running_rows(running)
    output.table(("FIELD", "VALUE"), rows)


@models.command()
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@click.option("--force", is_flag=True, help="Fetch again what is here already.")
@global_options()
@click.pass_obj
def pull(invocation: Invocation, *, names: tuple[str, ...], force: bool) -> None:
    """Fetch models; without a name, those that the settings need on this machine.

    Files are checked against the catalogue's SHA-256; a broken download resumes. What is here is
    left alone.
    """
    invocation.start_logging()
    output = invocation.output
    pulled = []
    for name in names or _needed(invocation):
        files = _pull(invocation, name, force=force)
        pulled.append(Pulled(files.entry.id, str(files.folder), files.bytes))
        if not output.as_json:
            output.text(f"{files.entry.id}  {human_bytes(files.bytes)}  ready")
    if output.as_json:
        output.data({"models": pulled})


@models.command()
@click.argument("program", type=click.Choice(["llamacpp"]), default="llamacpp")
@click.option("--force", is_flag=True, help="Build again what is here already.")
@click.option("--jobs", type=click.IntRange(min=1), help="Compilers at once. Default: all cores.")
@global_options()
@click.pass_obj
def build(invocation: Invocation, *, program: str, force: bool, jobs: int | None) -> None:
    """Compile llama.cpp for this processor: a generator's form llamacpp:native.

    Fetches the source from your package index (77 MB, checked against its SHA-256) and needs a C++
    compiler; CMake and Ninja are fetched where they are missing. About 15 minutes of one core.
    Ctrl-C keeps what was compiled; the next run goes on from there.
    """
    from ondol.cli.building import build_program

    invocation.start_logging()
    path, record = build_program(invocation, program, force=force, jobs=jobs or 0)
    output = invocation.output
    if output.as_json:
        output.data({**plain(record), "path": path})
    else:
        output.text(f"{record.name} {record.version}  {human_bytes(record.bytes)}  {path}")


@models.command()
@click.argument(
    "component", required=False, type=click.Choice(["embedder", "reranker", "generator"])
)
@click.option("--form", help="Form of the embedder or reranker, such as onnx:fp32.")
@global_options()
@click.pass_obj
def reload(
    invocation: Invocation,
    *,
    component: Literal["embedder", "reranker", "generator"] | None,
    form: str | None,
) -> None:
    """Make the running server load its models anew, or only one COMPONENT.

    The old ones serve until the new ones stand; no request is dropped.
    """
    from ondol.cli.running_server import post

    body = {"component": component} if form is None else {"component": component, "form": form}
    said = post(invocation.settings.server, "/v1/models/reload", body)
    output = invocation.output
    if output.as_json:
        output.data(said)
    else:
        output.text(f"reloaded: {', '.join(said['reloaded'])}")


def _listed(library: ModelLibrary, entry: CatalogueEntry) -> Listed:
    return Listed(
        id=entry.id,
        role=entry.role,
        title=entry.title,
        licence=entry.licence,
        languages=entry.languages,
        dimensions=entry.dimensions,
        max_tokens=entry.max_tokens,
        bytes=entry.bytes,
        state=library.state(entry.id),
        default=entry.default,
    )


def _needed(invocation: Invocation) -> list[str]:
    """Return the models that the settings need here, and say why this generator."""
    from ondol.core.machine import describe
    from ondol.models.generator_choice import choose_generator

    settings = invocation.settings
    names = [settings.models.embedder]
    if settings.models.reranker != "none":
        names.append(settings.models.reranker)
    generation = settings.generation
    if generation.upstream or generation.model == "none":
        return names
    if generation.model != "auto":
        return [*names, generation.model]
    choice = choose_generator(describe())
    invocation.output.note(f"generator: {choice.model_id} ({choice.reason})")
    return [*names, choice.model_id]


def _pull(invocation: Invocation, name: str, *, force: bool) -> ModelFiles:
    library = invocation.container().library
    with meter(invocation.output, unit="bytes", clock=invocation.clock) as shown:

        def show(progress: PullProgress) -> None:
            note = f"{name}, converting" if progress.phase == "convert" else name
            shown.update(done=progress.done, total=progress.total, note=note)

        return library.pull(name, progress=show, force=force)
