"""``ondol doctor``: what this machine has, what is wrong, and what to do about it.

What ``ondol doctor`` finds: facts about this machine, and checks with remedies.

Looks only; the one thing it may change is the store, when asked to repair it.
"""

from __future__ import annotations

import asyncio
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

import ondol
from ondol.cli.invocation import Invocation
from ondol.cli.options import global_options
from ondol.cli.output import Output

if TYPE_CHECKING:
    from ondol.core.machine import Machine
    from ondol.core.settings import Settings
    from ondol.models.library import ModelLibrary
    from ondol.store.records import StoreReport


MARKS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red")}


@click.command()
@click.option("--settings", "list_settings", is_flag=True, help="List every setting in force.")
@click.option("--repair", is_flag=True, help="Mend the store where its parts disagree.")
@global_options()
@click.pass_obj
def doctor(invocation: Invocation, *, list_settings: bool, repair: bool) -> None:
    """Check this machine, the installation, the models and the store.

    Exit code 1 when a check failed; warnings leave it at 0.
    """
    output = invocation.output
    if list_settings:
        _show_settings(invocation)
        return
    from ondol.core.machine import describe

    settings = invocation.settings
    machine = describe()
    libraries, libraries_check = check_libraries()
    library = invocation.container().library
    models, models_check = models_in_use(settings, library, machine)
    report = invocation.run(_store_report(invocation, repair=repair))
    checks = [
        check_python(),
        check_machine(machine),
        libraries_check,
        check_home(settings.home),
        models_check,
        check_store(report),
    ]
    ok = all(check.state != "fail" for check in checks)
    if output.as_json:
        output.data(
            {
                "ok": ok,
                "version": ondol.__version__,
                "machine": machine,
                "libraries": libraries,
                "home": settings.home,
                "models": models,
                "store": report,
                "checks": checks,
            }
        )
    else:
        _show(output, checks)
    if not ok:
        raise click.exceptions.Exit(1)


async def _store_report(invocation: Invocation, *, repair: bool) -> StoreReport | None:
    if not (invocation.settings.home / "ondol.db").exists():
        return None
    async with invocation.container() as container:
        look = container.store.repair if repair else container.store.check
        return await asyncio.to_thread(look)


def _show(output: Output, checks: list[Check]) -> None:
    output.text(f"ondol {ondol.__version__}")
    for check in checks:
        mark, colour = MARKS[check.state]
        output.text(f"{click.style(mark, fg=colour)}  {check.name:9}  {check.detail}")
        if check.hint:
            output.text(f"      {'':9}  hint: {check.hint}")


def _show_settings(invocation: Invocation) -> None:
    from ondol.core.settings import setting_sources

    sources = setting_sources(
        flags=invocation.flags, environ=invocation.environ, config=invocation.config
    )
    listed = settings_in_force(invocation.settings, sources)
    output = invocation.output
    if output.as_json:
        output.data({"settings": listed})
        return
    output.table(
        ("SETTING", "VALUE", "SOURCE", "WHAT IT IS, AND WHEN TO CHANGE IT"),
        [(s.key, s.value, s.source, s.description) for s in listed],
    )


State = Literal["ok", "warn", "fail"]

LIBRARIES = (
    "xllamacpp",
    "onnxruntime",
    "tokenizers",
    "kiwipiepy",
    "pypdfium2",
    "selectolax",
    "fastapi",
    "uvicorn",
    "pydantic",
    "numpy",
    "huggingface-hub",
)
SECRETS = frozenset({"server.api_keys", "server.key_lanes", "generation.upstream_key"})
_PASSWORD = re.compile(r"(?<=://)[^/@\s]*(?=@)|(?<=password=)[^&\s]*")
LITTLE_MEMORY = 3 * 10**9
LITTLE_DISK = 3 * 10**9


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: what was seen, and the remedy where it is not well."""

    name: str
    state: State
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class ModelInUse:
    """A model that the settings ask for, and whether it is here."""

    id: str
    role: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class SettingInForce:
    """One setting: its value, who said it, and when to change it. Secrets are masked."""

    key: str
    value: Any
    source: str
    description: str


def check_python() -> Check:
    version = platform.python_version()
    return Check("python", "ok", f"{version} ({sys.executable})")


def check_machine(machine: Machine) -> Check:
    detail = (
        f"{machine.cores} cores, {machine.memory_bytes / 1e9:.1f} GB memory, "
        f"{machine.free_bytes / 1e9:.1f} GB free; {machine.cpu}"
    )
    if machine.free_bytes < LITTLE_MEMORY:
        return Check(
            "machine",
            "warn",
            detail,
            hint="under 3 GB free: choose a small generator, or generation.model = 'none'",
        )
    return Check("machine", "ok", detail)


def check_libraries(names: Iterable[str] = LIBRARIES) -> tuple[dict[str, str], Check]:
    """Return the installed versions by name, and whether one is missing."""
    versions: dict[str, str] = {}
    missing: list[str] = []
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return versions, Check(
            "libraries",
            "fail",
            f"not installed: {', '.join(missing)}",
            hint="install Ondol again, or run `make setup`",
        )
    return versions, Check("libraries", "ok", ", ".join(f"{n} {v}" for n, v in versions.items()))


def check_home(home: Path) -> Check:
    """Check that the home, or the nearest folder above it that exists, can be written."""
    existing = next(path for path in (home, *home.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        return Check(
            "home",
            "fail",
            f"{home} cannot be written",
            hint="change its permissions, or set ONDOL_HOME to a folder of yours",
        )
    free = shutil.disk_usage(existing).free
    detail = f"{home}, {free / 1e9:.1f} GB free on its disk"
    if free < LITTLE_DISK:
        return Check("home", "warn", detail, hint="models need up to 2 GB: make room")
    return Check("home", "ok", detail)


def models_in_use(
    settings: Settings, library: ModelLibrary, machine: Machine
) -> tuple[list[ModelInUse], Check]:
    """Return the models the settings ask for, and whether one has to be fetched."""
    from ondol.models.generator_form import choose_generator

    used = []
    if settings.models.embedder != "none":
        used.append(_in_use(library, settings.models.embedder, "embedder", "models.embedder"))
    if settings.models.reranker != "none":
        used.append(_in_use(library, settings.models.reranker, "reranker", "models.reranker"))
    generation = settings.generation
    if not generation.upstream and generation.model == "auto":
        choice = choose_generator(machine, available=library.ready("generator"))
        used.append(_in_use(library, choice.model_id, "generator", choice.reason))
    elif not generation.upstream and generation.model != "none":
        used.append(_in_use(library, generation.model, "generator", "generation.model"))
    absent = [model.id for model in used if model.state != "ready"]
    detail = ", ".join(f"{model.id} {model.state}" for model in used)
    if absent:
        hint = f"ondol models pull {' '.join(absent)}"
        return used, Check("models", "warn", detail, hint=hint)
    return used, Check("models", "ok", detail)


def check_store(report: StoreReport | None) -> Check:
    """Judge what the store said about itself; ``None`` when there is no database yet."""
    if report is None:
        return Check("store", "ok", "no database yet")
    if report.ok:
        return Check("store", "ok", "documents, keywords and vectors agree")
    return Check("store", "fail", str(report), hint="mend it with: ondol doctor --repair")


def settings_in_force(settings: Settings, sources: dict[str, str]) -> list[SettingInForce]:
    """Return every setting with its value and who said it."""
    from ondol.core.settings import known_keys

    return [
        SettingInForce(key, _value(settings, key), sources.get(key, "default"), description)
        for key, description in known_keys().items()
    ]


def _value(settings: Settings, key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    if key in SECRETS and value:
        return "(set)"
    return _PASSWORD.sub("(set)", value) if isinstance(value, str) else value


def _in_use(library: ModelLibrary, name: str, role: str, reason: str) -> ModelInUse:
    return ModelInUse(id=name, role=role, state=library.state(name), reason=reason)
