"""``ondol models info``: one model, on disk, as it would run here, and as it runs in the server.

What runs is asked of the server that the settings name; without one, the manifest and the profile
tell what would run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ondol.cli.invocation import Invocation
from ondol.cli.output import human_bytes

if TYPE_CHECKING:
    from ondol.models.catalogue import CatalogueEntry
    from ondol.models.manifest import BuiltForm
    from ondol.services.encoder_plan import EncoderPlan

Rows = list[tuple[str, object]]


@dataclass(frozen=True, slots=True)
class Forms:
    """How a model can run here (``available``), is made (``built``) and would run (``plan``)."""

    available: tuple[str, ...]
    built: tuple[BuiltForm, ...]
    plan: EncoderPlan | None
    fidelity: Mapping[str, float]


def forms_of(invocation: Invocation, entry: CatalogueEntry) -> Forms:
    """Return what is known of the model's forms without a server."""
    from ondol.core.errors import OndolError
    from ondol.models.loading import available_forms
    from ondol.services.backend_factory import BackendFactory

    backends = BackendFactory(invocation.settings)
    plan, fidelity = None, {}
    if entry.role != "generator" and backends.library.state(entry.id) == "ready":
        source = backends.model(entry.id, role=entry.role)
        try:
            plan = source.plan()
            fidelity = dict(source.fidelity(plan.query.form))
        except OndolError as error:
            invocation.output.note(f"{entry.id}: {error.message}")
    return Forms(
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


def form_rows(forms: Forms) -> Rows:
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
