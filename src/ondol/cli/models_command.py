"""``ondol models``: which weights there are, fetching them, and swapping them in a running server.

``ondol models info``: one model, on disk, as it would run here, and as it runs in the server.

What runs is asked of the server that the settings name; without one, the manifest and the profile
tell what would run.

``ondol models build``: the way from a command to a compiled program, with its progress shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ondol.cli.invocation import Invocation
from ondol.cli.lazy import LazyCommand, LazyGroup
from ondol.cli.options import global_options
from ondol.cli.output import human_bytes, meter, plain

if TYPE_CHECKING:
    from ondol.models.builds import BuildProgress, NativeBuild
    from ondol.models.catalogue import CatalogueEntry
    from ondol.models.library import ModelFiles, ModelLibrary, PullProgress
    from ondol.models.manifest import BuiltForm
    from ondol.runtime.encoders.encoder_plan import EncoderPlan


@dataclass(frozen=True, slots=True)
class ModelListing:
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
class PullReport:
    """A model that is ready, and where its files lie."""

    id: str
    folder: str
    bytes: int


FINETUNE = LazyCommand(
    "ondol.lab.commands.finetune_command:finetune",
    "Train the settings' embedder on a collection; NAME is the new model's.",
)


@click.group(cls=LazyGroup, lazy={"finetune": FINETUNE})
@global_options()
def models() -> None:
    """List, fetch, fine-tune and reload model weights; build what runs them."""


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
    library = invocation.container().library
    found = library.entry(model)
    listed = _listed(library, found)
    forms = forms_of(invocation, found)
    served = running(invocation, found.id)
    output = invocation.output
    if output.as_json:
        output.data({**plain(found), **plain(listed), "runs_as": plain(forms), "running": served})
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
    rows += form_rows(forms)
    if served is not None:
        rows += running_rows(served)
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
        pulled.append(PullReport(files.entry.id, str(files.folder), files.bytes))
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


def _listed(library: ModelLibrary, entry: CatalogueEntry) -> ModelListing:
    return ModelListing(
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
    from ondol.models.generator_form import choose_generator

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


Rows = list[tuple[str, object]]


@dataclass(frozen=True, slots=True)
class FormListing:
    """How a model can run here (``available``), is made (``built``) and would run (``plan``)."""

    available: tuple[str, ...]
    built: tuple[BuiltForm, ...]
    plan: EncoderPlan | None
    fidelity: Mapping[str, float]


def forms_of(invocation: Invocation, entry: CatalogueEntry) -> FormListing:
    """Return what is known of the model's forms without a server."""
    from ondol.core.errors import OndolError
    from ondol.models.loading import available_forms
    from ondol.runtime.backend_factory import BackendFactory

    backends = BackendFactory(invocation.settings)
    plan, fidelity = None, {}
    if entry.role != "generator" and backends.library.state(entry.id) == "ready":
        source = backends.model(entry.id, role=entry.role)
        try:
            plan = source.plan()
            fidelity = dict(source.fidelity(plan.query.form))
        except OndolError as error:
            invocation.output.note(f"{entry.id}: {error.message}")
    return FormListing(
        available=available_forms(entry),
        built=backends.library.info(entry.id).built,
        plan=plan,
        fidelity=fidelity,
    )


def running(invocation: Invocation, model: str) -> Mapping[str, Any] | None:
    """Return what the server says of ``model``, or ``None`` where none runs it."""
    from ondol.cli.running_server import look

    said = look(invocation.settings.server, f"/v1/models/{model}")
    if not isinstance(said, dict) or said.get("state") == "not_loaded":
        return None
    return said


def form_rows(forms: FormListing) -> Rows:
    """Return the rows of a table: forms, which would run and why."""
    rows: Rows = [("forms", ", ".join(forms.available))]
    rows += [
        ("built", f"{made.form}  {human_bytes(made.bytes)}, made in {made.seconds:.1f} s")
        for made in forms.built
    ]
    plan = forms.plan
    if plan is None:
        return rows
    choices = {"would run": plan.query, "bulk work": plan.bulk}
    for name, choice in choices.items():
        if choice is not None:
            rows.append(
                (
                    name,
                    f"{choice.form}, {choice.threads} threads, {choice.token_budget} tokens a batch "
                    f"({choice.reason})",
                )
            )
    if forms.fidelity:
        rows.append(("fidelity", _figures(forms.fidelity)))
    return rows


def running_rows(said: Mapping[str, Any]) -> Rows:
    """Return the rows of what the server said."""
    rows: Rows = [("in the server", said.get("state", ""))]
    for slot in said.get("slots") or []:
        rows += _slot_rows(slot)
    if said.get("ab"):
        rows += _ab_rows(said["ab"])
    rows += [
        (
            "cache",
            f"{tier['tier']}: {tier['entries']} texts, {human_bytes(tier['bytes'])}, "
            f"{tier['hits']} hits, {tier['misses']} misses",
        )
        for tier in said.get("cache") or []
    ]
    return rows


def _slot_rows(slot: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    memory, batch = slot["memory"], slot["batch"]
    yield (slot["purpose"], f"{slot['form']} on {slot['device']}, {slot['state']}")
    yield ("  reason", slot["reason"])
    if slot["fallback"]:
        yield ("  fallback", slot["fallback"])
    if slot["error"]:
        yield ("  error", slot["error"])
    resident = memory["resident_bytes"]
    if resident is not None:
        about = "" if memory["exact"] else "about "
        yield (
            "  memory",
            f"{about}{human_bytes(resident)} at the load, file {human_bytes(memory['weights_bytes'])}",
        )
    yield ("  loaded", f"{slot['loads']} times, last in {slot['load_seconds']:.2f} s")
    if batch:
        yield (
            "  batch",
            f"{batch['token_budget']} tokens, {batch['max_batch']} items, {batch['threads']} threads",
        )
    if slot["fidelity"]:
        yield ("  fidelity", _figures(slot["fidelity"]))


def _ab_rows(ab: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    figures = ab["figures"]
    yield ("candidate", f"{ab['candidate']}, {ab['mode']}, share {ab['share']:g}")
    if ab["error"]:
        yield ("  error", ab["error"])
    for side in ("primary", "candidate"):
        one = figures[side]
        if one["requests"]:
            yield (
                f"  {side}",
                f"{one['requests']} requests, p50 {one['p50_ms']:.1f} ms, p95 {one['p95_ms']:.1f} ms",
            )
    agreement = figures["agreement"]
    if agreement and agreement["compared"]:
        yield (
            f"  {agreement['measure']}",
            f"mean {agreement['mean']:.4f}, least {agreement['least']:.4f} "
            f"over {agreement['compared']}",
        )
    yield ("  errors", f"{figures['errors']}, dropped {figures['dropped']}")


def _figures(figures: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in figures.items()
    )


def build_program(
    invocation: Invocation, name: str, *, force: bool, jobs: int
) -> tuple[Path, NativeBuild]:
    """Return the program and its record, compiled now unless it is here."""
    from ondol.models.builds import RECIPES, NativeBuilder
    from ondol.runtime.generation.generator_assembly import builds_folder

    settings = invocation.settings
    with meter(invocation.output, unit="items", clock=invocation.clock) as shown:

        def show(progress: BuildProgress) -> None:
            note = f"{name}: {progress.phase} {Path(progress.note).name}".strip()
            shown.update(done=progress.done, total=progress.total, note=note)

        builder = NativeBuilder(
            RECIPES[name],
            root=builds_folder(settings.home),
            offline=settings.offline,
            jobs=jobs,
            progress=show,
            clock=invocation.clock,
        )
        try:
            return builder.build(force=force)
        except KeyboardInterrupt:
            invocation.output.note("what was compiled is kept; run it again to go on")
            raise
