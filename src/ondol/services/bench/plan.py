"""Which form a bench runs, chosen as the server chooses: settings, profile, catalogue."""

from __future__ import annotations

from dataclasses import dataclass

from ondol.core.machine import Machine
from ondol.core.settings import Settings
from ondol.models.form_choice import FormChoice, choose_form
from ondol.models.library import ModelFiles
from ondol.models.profile import Chosen, Purpose, chosen, key_of, read_profile
from ondol.services.bench.encoders import Plan
from ondol.services.probe.subject import Subject


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan, and why this form."""

    plan: Plan
    reason: str


def planned(
    subject: Subject,
    files: ModelFiles,
    settings: Settings,
    machine: Machine,
    *,
    form: str = "auto",
    threads: int = 0,
    token_budget: int = 0,
    repeats: int = 3,
) -> Planned:
    """Return how ``subject`` runs here; a form, threads or budget that is named has the last word."""
    profile, key = read_profile(settings.home), key_of(files, machine=machine)

    def choice(purpose: Purpose) -> FormChoice:
        return choose_form(
            subject.forms,
            reference=subject.reference,
            wanted=form,
            optimize=settings.models.optimize,
            measured=chosen(profile, subject.model, purpose, key),
        )

    def concrete(found: FormChoice) -> Chosen:
        return Chosen(
            form=found.form,
            threads=threads or found.threads or settings.models.threads or machine.cores,
            token_budget=token_budget or found.token_budget or settings.models.token_budget,
        )

    found = choice("bulk")
    bulk, query = concrete(found), concrete(choice("query"))
    same = (bulk.form, bulk.threads) == (query.form, query.threads)
    return Planned(Plan(bulk, None if same else query, repeats), found.reason)
