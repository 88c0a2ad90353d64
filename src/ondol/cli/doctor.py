"""``ondol doctor``: what this machine has, what is wrong, and what to do about it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

import ondol
from ondol.cli import diagnosis
from ondol.cli.invocation import Invocation
from ondol.cli.options import global_options
from ondol.cli.output import Output

if TYPE_CHECKING:
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
    libraries, libraries_check = diagnosis.check_libraries()
    library = invocation.container().library
    models, models_check = diagnosis.models_in_use(settings, library, machine)
    report = invocation.run(_store_report(invocation, repair=repair))
    checks = [
        diagnosis.check_python(),
        diagnosis.check_machine(machine),
        libraries_check,
        diagnosis.check_home(settings.home),
        models_check,
        diagnosis.check_store(report),
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


def _show(output: Output, checks: list[diagnosis.Check]) -> None:
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
    listed = diagnosis.settings_in_force(invocation.settings, sources)
    output = invocation.output
    if output.as_json:
        output.data({"settings": listed})
        return
    output.table(
        ("SETTING", "VALUE", "SOURCE", "WHAT IT IS, AND WHEN TO CHANGE IT"),
        [(s.key, s.value, s.source, s.description) for s in listed],
    )
