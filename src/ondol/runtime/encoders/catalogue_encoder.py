"""A catalogue model as an encoder source: its forms, the choice among them, loading one.

Reads the profile at each plan, so that a reload takes what ``ondol tune`` has found since. All
methods block; a model library is imported only when one of its forms is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ondol.backends.protocols import EncoderBackend
from ondol.core.errors import InvalidInput
from ondol.core.machine import Machine
from ondol.core.settings.sections import ModelSettings
from ondol.core.types import ModelRole
from ondol.models.form import parse_form
from ondol.models.form_choice import FormChoice, choose_form
from ondol.models.library import ModelFiles, ModelLibrary
from ondol.models.loading import available_forms, load_encoder, reference_form
from ondol.models.profile import Profile, Purpose, chosen, key_of, read_profile
from ondol.runtime.encoders.encoder_plan import EncoderPlan


class CatalogueEncoder:
    """The model ``name`` of the library, as ``settings`` want it to run."""

    def __init__(
        self,
        name: str,
        *,
        role: ModelRole,
        wanted: str,
        settings: ModelSettings,
        library: ModelLibrary,
        machine: Machine,
        home: Path,
    ) -> None:
        self._name = name
        self._role = role
        self._wanted = wanted
        self._settings = settings
        self._library = library
        self._machine = machine
        self._home = home

    def plan(self, *, form: str = "auto") -> EncoderPlan:
        """Return which forms to run; see ``EncoderSource``."""
        files = self._library.files(self._name)
        entry = files.entry
        if entry.role != self._role:
            raise InvalidInput(
                f"the role of {entry.id} is {entry.role}, not {self._role}",
                hint=f"see `ondol models list --role {self._role}`",
                param=f"models.{self._role}",
            )
        profile = read_profile(self._home)
        query = self._choice(files, profile, "query", form)
        bulk = self._choice(files, profile, "bulk", form)
        return EncoderPlan(
            model=entry.id,
            role=entry.role,
            query=query,
            bulk=bulk if bulk.form != query.form else None,
            reference=self._complete(FormChoice(reference_form(entry), "the reference form")),
            query_prefix=entry.query_prefix,
            document_prefix=entry.document_prefix,
            languages=entry.languages,
            space=f"{entry.upstream} {entry.dimensions}",
        )

    def encoder(self, choice: FormChoice) -> EncoderBackend:
        """Make the form where it is missing, and load it."""
        files = self._library.files(self._name)
        return load_encoder(
            files,
            form=choice.form,
            threads=choice.threads or self._threads(),
            gpu_memory_fraction=self._settings.gpu_memory_fraction,
        )

    def weight_bytes(self, form: str) -> int:
        """Return the size of the form's file, or of the weights it runs from."""
        info = self._library.info(self._name)
        built = next((made.bytes for made in info.built if made.form == form), 0)
        return built or info.entry.weights.bytes

    def fidelity(self, form: str) -> Mapping[str, float]:
        """Return the figures that ``ondol tune`` measured of ``form`` here."""
        files = self._library.files(self._name)
        found = read_profile(self._home).models.get(self._name)
        if found is None or found.key != key_of(files, machine=self._machine):
            return {}
        for row in found.evidence:
            if row.get("form") == form and isinstance(row.get("fidelity"), Mapping):
                return {
                    str(name): float(value)
                    for name, value in row["fidelity"].items()
                    if isinstance(value, int | float) and not isinstance(value, bool)
                }
        return {}

    def _choice(
        self, files: ModelFiles, profile: Profile, purpose: Purpose, form: str
    ) -> FormChoice:
        named = form != "auto"
        if named:
            parse_form(form)
        key = key_of(files, machine=self._machine)
        choice = choose_form(
            available_forms(files.entry),
            reference=reference_form(files.entry),
            wanted=form if named else self._wanted,
            optimize=self._settings.optimize,
            measured=chosen(profile, files.entry.id, purpose, key),
        )
        return self._complete(
            replace(choice, reason="named in the reload request") if named else choice
        )

    def _complete(self, choice: FormChoice) -> FormChoice:
        """Fill in what the choice leaves to the settings; a setting that was said wins."""
        said = self._settings.model_fields_set
        budget, threads = choice.token_budget, choice.threads
        if not budget or "token_budget" in said:
            budget = self._settings.token_budget
        if not threads or self._settings.threads:
            threads = self._threads()
        return replace(choice, token_budget=budget, threads=threads)

    def _threads(self) -> int:
        return self._settings.threads or self._machine.cores
