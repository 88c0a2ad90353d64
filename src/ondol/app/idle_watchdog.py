"""The idle watchdog at work: looks at a service, and does what its settings say when it is idle.

Who the service is, is its owner's business: ``load`` says what runs and waits, ``read`` how busy the
machine is, ``act`` unloads or ends it. A command is run here. Each decision that differs from the
last is logged with its evidence; a dry run logs and does nothing.

Running a program that the operator named: an argument list, no shell, no input, a time limit.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from ondol.core.clock import Clock
from ondol.core.errors import OndolError
from ondol.core.machine import MachineUsage
from ondol.core.sampling import Sampler
from ondol.core.settings.operation_sections import WatchdogSettings
from ondol.core.timers import Timers
from ondol.telemetry.watchdog import Decision, IdleWatch, ServiceLoad

PROGRAM_SECONDS = 120.0
_LAST_WORDS = 500


async def run_program(argv: Sequence[str], *, seconds: float = PROGRAM_SECONDS) -> str:
    """Run ``argv`` to its end and return one sentence on it.

    Raises ``OndolError`` with the code ``program_failed`` where it cannot be started, does not end in
    time or says that it failed; a program that is still running after ``seconds`` is killed.
    """
    line = shlex.join(argv)
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except (OSError, ValueError) as error:
        raise _failed(
            f"{line} could not be started: {error}", hint="check watchdog.command"
        ) from None
    try:
        async with asyncio.timeout(seconds):
            _, said = await process.communicate()
    except TimeoutError:
        raise _failed(
            f"{line} did not end within {seconds:g} s and was killed",
            hint="name a program that returns at once",
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        words = " ".join(said.decode("utf-8", "replace").split())[-_LAST_WORDS:]
        raise _failed(
            f"{line} ended with {process.returncode}" + (f": {words}" if words else ""),
            hint="run it by hand as this user",
        )
    return f"{line} ended well"


def _failed(message: str, *, hint: str) -> OndolError:
    return OndolError(message, hint=hint, code="program_failed")


_log = logging.getLogger("ondol.watchdog")

ServiceAction = Literal["unload", "exit"]
Load = Callable[[], Awaitable[ServiceLoad | None]]
Act = Callable[[ServiceAction], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class WatchdogOutcome:
    """A decision and what came of it: ``acted`` is false in a dry run, ``error`` says what failed."""

    decision: Decision
    acted: bool = False
    dry_run: bool = False
    said: str = ""
    error: str = ""


class Watchdog:
    """Looks every ``sample_seconds`` and acts once an idle time. On one event loop.

    ``read`` runs in a thread; ``load`` is asked after it, on the loop, right before the decision;
    ``None`` from it means that nothing is known, and nothing is done. ``act`` returns a sentence on
    what it did and raises what went wrong. ``told`` hears every outcome.
    """

    def __init__(
        self,
        settings: WatchdogSettings,
        *,
        read: Callable[[], MachineUsage],
        load: Load,
        act: Act,
        clock: Clock,
        timers: Timers,
        told: Callable[[WatchdogOutcome], None] | None = None,
    ) -> None:
        self._settings = settings
        self._load = load
        self._act = act
        self._told = told
        self._watch = IdleWatch(settings, clock=clock)
        self._verdict = ""
        self._sampler = Sampler(
            read, self._found, seconds=settings.sample_seconds, timers=timers, name="ondol-watchdog"
        )

    def start(self) -> None:
        """Begin to watch."""
        self._sampler.start()

    async def look(self) -> None:
        """Look now, without waiting for the next look to be due."""
        await self._sampler.look()

    async def close(self) -> None:
        """Watch no more."""
        await self._sampler.close()

    async def _found(self, usage: MachineUsage) -> None:
        decision = self._watch.look(await self._load(), usage)
        self._log(decision)
        outcome = (
            await self._done(decision) if decision.verdict == "due" else WatchdogOutcome(decision)
        )
        if self._told is not None:
            self._told(outcome)

    async def _done(self, decision: Decision) -> WatchdogOutcome:
        action = decision.action
        if action == "none" or self._settings.dry_run:
            _log.info("the watchdog does nothing; it would: %s", action)
            return WatchdogOutcome(decision, dry_run=self._settings.dry_run)
        try:
            said = (
                await run_program(self._settings.command)
                if action == "command"
                else await self._act(action)
            )
        except OndolError as error:
            _log.error("the watchdog could not %s: %s (%s)", action, error.message, error.hint)
            return WatchdogOutcome(decision, acted=True, error=error.message)
        except Exception as error:
            _log.exception("the watchdog could not %s", action)
            return WatchdogOutcome(decision, acted=True, error=f"{type(error).__name__}: {error}")
        _log.info("the watchdog did: %s; %s", action, said)
        return WatchdogOutcome(decision, acted=True, said=said)

    def _log(self, decision: Decision) -> None:
        changed = decision.verdict != self._verdict
        self._verdict = decision.verdict
        level = logging.INFO if changed else logging.DEBUG
        if decision.verdict == "due":
            level = logging.WARNING
        _log.log(
            level,
            "watchdog: %s (%s); action: %s; evidence: %s",
            decision.verdict,
            decision.reason,
            decision.action,
            _evidence_text(decision),
            extra={"evidence": asdict(decision.evidence)},
        )


def _evidence_text(decision: Decision) -> str:
    """Return the evidence for people; the fields themselves are the log record's ``evidence``."""
    found = decision.evidence
    shares = [
        f"{name} {share:.1%}"
        for name, share in (("gpu", found.gpu), ("service", found.service))
        if share is not None
    ]
    return ", ".join(
        [
            f"running {found.running}, waiting {found.queued}",
            *shares,
            f"{found.looks} looks over {found.idle_for:.0f} of {found.idle_seconds:g} s",
            f"busiest {found.busiest:.1%} of {found.busy_below:.1%}",
        ]
    )
