"""The watchdog at work: acts once, logs why, does nothing in a dry run, runs programs without a shell."""

from __future__ import annotations

import json
import logging
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from ondol.app.idle_watchdog import ServiceAction, Watchdog, WatchdogOutcome, run_program
from ondol.core.clock import ManualClock
from ondol.core.errors import NotReady, OndolError
from ondol.core.machine import MachineUsage
from ondol.core.settings.operation_sections import WatchdogSettings
from ondol.core.timers import ManualTimers
from ondol.telemetry.logs import JsonFormatter
from ondol.telemetry.watchdog import ServiceLoad


class Stage:
    """A watchdog over a service that the test holds; each look is five seconds after the last."""

    def __init__(self, **settings: Any) -> None:
        self.clock = ManualClock(1000)
        self.load: ServiceLoad | None = ServiceLoad(0, 0)
        self.error: Exception | None = None
        self.acts: list[str] = []
        self.told: list[WatchdogOutcome] = []
        said = {"action": "unload", "idle_seconds": 10, "sample_seconds": 5} | settings
        self.dog = Watchdog(
            WatchdogSettings.model_validate(said),
            read=lambda: MachineUsage(cpu_own=0.0),
            load=self._load,
            act=self._act,
            clock=self.clock,
            timers=ManualTimers(self.clock),
            told=self.told.append,
        )

    async def looks(self, times: int) -> WatchdogOutcome:
        for _ in range(times):
            self.clock.advance(5)
            await self.dog.look()
        return self.told[-1]

    async def _load(self) -> ServiceLoad | None:
        return self.load

    async def _act(self, action: ServiceAction) -> str:
        self.acts.append(action)
        if self.error is not None:
            raise self.error
        return "done as told"


async def test_it_acts_once_in_an_idle_time() -> None:
    stage = Stage()
    outcome = await stage.looks(3)
    assert (outcome.acted, outcome.said, outcome.error) == (True, "done as told", "")
    await stage.looks(10)
    assert stage.acts == ["unload"]
    stage.load = ServiceLoad(1, 0)
    await stage.looks(1)
    stage.load = ServiceLoad(0, 0)
    await stage.looks(3)
    assert stage.acts == ["unload", "unload"]


@pytest.mark.parametrize("load", [None, ServiceLoad(1, 0), ServiceLoad(0, 3)])
async def test_it_never_acts_while_something_runs_or_is_unknown(load: ServiceLoad | None) -> None:
    stage = Stage(action="exit")
    stage.load = load
    await stage.looks(50)
    assert stage.acts == []


async def test_a_dry_run_says_what_it_would_do(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    stage = Stage(action="command", command=("touch", str(touched)), dry_run=True)
    outcome = await stage.looks(20)
    assert [o.dry_run for o in stage.told if o.decision.verdict == "due"] == [True]
    assert not any(o.acted for o in stage.told)
    assert outcome.decision.verdict == "done"
    assert not touched.exists()


async def test_without_an_action_nothing_is_done() -> None:
    stage = Stage(action="none")
    await stage.looks(20)
    assert stage.acts == []
    assert not any(o.acted for o in stage.told)


async def test_a_command_is_run_once_and_without_a_shell(tmp_path: Path) -> None:
    written = tmp_path / "written"
    code = "import sys; open(sys.argv[1], 'a').write(repr(sys.argv[2:]))"
    stage = Stage(
        action="command", command=(sys.executable, "-c", code, str(written), "$HOME; rm x", "&&")
    )
    await stage.looks(20)
    assert written.read_text() == "['$HOME; rm x', '&&']"
    assert stage.acts == []


async def test_a_command_that_fails_is_logged_and_not_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counted = tmp_path / "counted"
    code = "import sys; open(sys.argv[1], 'a').write('x'); sys.exit('not allowed')"
    stage = Stage(action="command", command=(sys.executable, "-c", code, str(counted)))
    await stage.looks(20)
    assert counted.read_text() == "x"
    assert "could not command" in caplog.text
    assert "ended with 1: not allowed" in caplog.text
    (failed,) = [outcome for outcome in stage.told if outcome.error]
    assert "not allowed" in failed.error


async def test_an_action_that_fails_does_not_end_the_watch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = Stage()
    stage.error = NotReady("no server", retry_after=1, hint="start it")
    outcome = await stage.looks(3)
    assert outcome.error == "no server"
    assert "could not unload: no server (start it)" in caplog.text
    assert (await stage.looks(1)).decision.verdict == "done"


async def test_each_decision_is_logged_with_its_evidence() -> None:
    lines = StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("ondol.watchdog")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        await Stage().looks(5)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    said = [json.loads(line) for line in lines.getvalue().splitlines()]
    decisions = [line for line in said if "evidence" in line]
    assert [line["message"].split()[1] for line in decisions] == ["idle", "due", "done"]
    assert decisions[1]["evidence"]["looks"] == 3
    assert decisions[1]["evidence"]["busy_below"] == 0.05
    assert "3 looks over 10 of 10 s" in decisions[1]["message"]


async def test_a_program_that_is_not_there_or_does_not_end(tmp_path: Path) -> None:
    with pytest.raises(OndolError, match="could not be started"):
        await run_program([str(tmp_path / "none")])
    with pytest.raises(OndolError, match="did not end within 0.2 s and was killed"):
        await run_program(
            [sys.executable, "-c", "input_ = __import__('time').sleep(60)"], seconds=0.2
        )
    assert await run_program(["true"]) == "true ended well"


@pytest.mark.parametrize("command", [(), ("",)])
def test_a_command_must_be_named(command: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="action = command without watchdog.command"):
        WatchdogSettings(action="command", command=command)
