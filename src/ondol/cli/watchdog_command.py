"""``ondol watchdog``: watches a running server, and unloads, ends it or stops the machine when idle.

Talks to the server that the settings name, over HTTP. Ends it only when it is known for certain
which process it is: the one that wrote its number into ``ONDOL_HOME`` and listens on that port.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from ondol.cli.invocation import Invocation
from ondol.cli.options import global_options

if TYPE_CHECKING:
    from ondol.app.idle_watchdog import ServiceAction, WatchdogOutcome
    from ondol.core.pid_file import ServerProcess
    from ondol.core.settings import Settings
    from ondol.telemetry.watchdog import ServiceLoad

LANES = "/v1/lanes"
UNLOAD = "/v1/models/unload"


@click.command()
@click.option(
    "--action",
    type=click.Choice(["none", "unload", "exit", "command"]),
    help="What to do when idle (watchdog.action).",
)
@click.option(
    "--idle",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="How long it must have been idle (watchdog.idle_seconds).",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option(
    "--once",
    is_flag=True,
    help="Watch for one idle time: act at its end, or end at the first sign of work.",
)
@global_options()
@click.pass_obj
def watchdog(
    invocation: Invocation, *, action: str | None, idle: float | None, dry_run: bool, once: bool
) -> None:
    """Watch a running server; when it has been idle for long enough, take the action.

    Never while a request runs or waits, nor when the server does not answer. With --json, one line
    for each decision that differs from the last. Exit code 1 when the action failed.
    """
    invocation.flags.update(
        {
            key: value
            for key, value in (
                ("watchdog.action", action),
                ("watchdog.idle_seconds", idle),
                ("watchdog.dry_run", True if dry_run else None),
            )
            if value is not None
        }
    )
    settings = invocation.settings
    if settings.watchdog.action == "none":
        invocation.output.note("watchdog.action is none: idle times are told, nothing is done")
    watching = _Watching(invocation, settings, once=once)
    with suppress(asyncio.CancelledError):
        invocation.run(watching.run())
    if watching.failed:
        raise click.exceptions.Exit(1)


@dataclass(frozen=True, slots=True)
class WatchdogReport:
    """One decision as ``--json`` tells it."""

    verdict: str
    action: str
    reason: str
    acted: bool
    dry_run: bool
    said: str
    error: str
    evidence: dict[str, object]


class _Watching:
    """One run of the command."""

    def __init__(self, invocation: Invocation, settings: Settings, *, once: bool) -> None:
        self.failed = False
        self._invocation = invocation
        self._settings = settings
        self._once = once
        self._verdict = ""
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Watch until the end: an idle time with ``--once``, an ended server, or ctrl-C."""
        from ondol.app.idle_watchdog import Watchdog
        from ondol.core.timers import LoopTimers
        from ondol.telemetry.gpu import Gpus
        from ondol.telemetry.usage import UsageReader

        reader = UsageReader(pid=self._pid, gpus=await asyncio.to_thread(Gpus.open))
        dog = Watchdog(
            self._settings.watchdog,
            read=reader.read,
            load=self._load,
            act=self._act,
            clock=self._invocation.clock,
            timers=LoopTimers(),
            told=self._tell,
        )
        dog.start()
        try:
            await self._over.wait()
        finally:
            await dog.close()

    def _server(self) -> ServerProcess | None:
        """Return the server's process, if it is the one of this home that listens on that port."""
        from ondol.core.pid_file import server_process

        found = server_process(self._settings.home)
        return found if found and found.port == self._settings.server.port else None

    def _pid(self) -> int | None:
        server = self._server()
        return server.pid if server is not None else None

    async def _load(self) -> ServiceLoad | None:
        from ondol.cli.running_server import look
        from ondol.telemetry.watchdog import ServiceLoad

        said = await asyncio.to_thread(look, self._settings.server, LANES)
        return ServiceLoad.of_lanes(said)

    async def _act(self, action: ServiceAction) -> str:
        return await asyncio.to_thread(self._unload if action == "unload" else self._exit)

    def _unload(self) -> str:
        from ondol.cli.running_server import post

        said = post(self._settings.server, UNLOAD, {})
        return f"unloaded: {', '.join(said['unloaded']) or 'nothing was loaded'}"

    def _exit(self) -> str:
        from ondol.core.errors import NotFound
        from ondol.core.pid_file import NAME

        server = self._server()
        if server is None or not server.terminate():
            raise NotFound(
                f"the process that serves on port {self._settings.server.port} is not known: "
                f"{self._settings.home / NAME} does not name it",
                hint="run it on the same machine, with the same ONDOL_HOME and as the same user",
            )
        return f"process {server.pid} was asked to end"

    def _tell(self, outcome: WatchdogOutcome) -> None:
        decision, output = outcome.decision, self._invocation.output
        changed, self._verdict = decision.verdict != self._verdict, decision.verdict
        if changed:
            if output.as_json:
                output.data(_told(outcome))
            else:
                output.text(_line(outcome))
        self.failed |= bool(outcome.error)
        ended = outcome.acted and decision.action == "exit" and not outcome.error
        if ended or (self._once and decision.verdict != "idle"):
            self._over.set()


def _told(outcome: WatchdogOutcome) -> WatchdogReport:
    decision = outcome.decision
    return WatchdogReport(
        verdict=decision.verdict,
        action=decision.action,
        reason=decision.reason,
        acted=outcome.acted,
        dry_run=outcome.dry_run,
        said=outcome.said,
        error=outcome.error,
        evidence=asdict(decision.evidence),
    )


def _line(outcome: WatchdogOutcome) -> str:
    decision = outcome.decision
    line = f"{decision.verdict}: {decision.reason}"
    if decision.verdict != "due":
        return line
    if outcome.error:
        return f"{line}; {decision.action} failed: {outcome.error}"
    if outcome.acted:
        return f"{line}; {decision.action}: {outcome.said}"
    return f"{line}; would: {decision.action}"
