"""When a service counts as idle: never while something runs, waits, or is not known."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.core.clock import ManualClock
from ondol.core.machine import MachineUsage
from ondol.core.settings.operation_sections import WatchdogSettings
from ondol.telemetry.watchdog import Decision, IdleWatch, ServiceLoad

SETTINGS = WatchdogSettings(action="unload", idle_seconds=60, sample_seconds=5)
NOTHING = ServiceLoad(0, 0)
QUIET = MachineUsage(cpu_own=0.01)


class Watching:
    def __init__(self) -> None:
        self.clock = ManualClock(1e6)
        self.watch = IdleWatch(SETTINGS, clock=self.clock)

    def look(
        self, load: ServiceLoad | None = NOTHING, usage: MachineUsage = QUIET, *, after: float = 5
    ) -> Decision:
        self.clock.advance(after)
        return self.watch.look(load, usage)

    def verdicts(self, times: int, load: ServiceLoad | None = NOTHING) -> list[str]:
        return [self.look(load).verdict for _ in range(times)]


def test_the_action_falls_due_once_after_the_whole_time() -> None:
    seen = Watching().verdicts(20)
    assert seen == ["idle"] * 12 + ["due"] + ["done"] * 7


def test_a_decision_carries_its_evidence() -> None:
    watching = Watching()
    watching.look(usage=MachineUsage(cpu_own=0.049, gpu=0.02))
    watching.verdicts(11)
    due = watching.look()
    found = due.evidence
    assert (due.verdict, due.action) == ("due", "unload")
    assert (found.looks, found.idle_for, found.idle_seconds) == (13, 60, 60)
    assert (found.busiest, found.busy_below) == (0.049, 0.05)
    assert (found.running, found.queued, found.gpu, found.service) == (0, 0, None, 0.01)
    assert found.measured == ("processor", "requests")
    assert "idle for 60 s, at most 4.9% busy" in due.reason


@pytest.mark.parametrize(
    ("load", "usage", "verdict"),
    [
        (None, QUIET, "unknown"),
        (ServiceLoad(1, 0), QUIET, "working"),
        (ServiceLoad(0, 1), QUIET, "working"),
        (NOTHING, MachineUsage(cpu_own=0.05), "busy"),
        (NOTHING, MachineUsage(cpu_own=0.0, gpu=0.3), "busy"),
    ],
)
def test_any_sign_of_work_starts_the_time_again(
    load: ServiceLoad | None, usage: MachineUsage, verdict: str
) -> None:
    watching = Watching()
    assert watching.verdicts(12)[-1] == "idle"
    said = watching.look(load, usage)
    assert (said.verdict, said.evidence.looks, said.evidence.idle_for) == (verdict, 0, 0)
    assert watching.verdicts(13) == ["idle"] * 12 + ["due"]


def test_work_arms_the_action_again_and_silence_does_not() -> None:
    watching = Watching()
    watching.verdicts(13)
    watching.look(None)
    assert "due" not in watching.verdicts(30)
    watching.look(ServiceLoad(1, 0))
    assert watching.verdicts(13)[-1] == "due"


def test_time_that_nobody_watched_does_not_count() -> None:
    """A machine that slept, or a watcher that hung, has seen nothing."""
    watching = Watching()
    watching.verdicts(10)
    assert watching.look(after=3600).evidence.idle_for == 0
    assert watching.verdicts(12)[-1] == "due"


def test_without_any_measurement_the_requests_decide() -> None:
    watching = Watching()
    seen = [watching.look(usage=MachineUsage()).verdict for _ in range(13)]
    assert seen[-1] == "due"


LOOKS = st.lists(
    st.tuples(
        st.none() | st.builds(ServiceLoad, st.integers(0, 2), st.integers(0, 2)),
        st.none() | st.floats(0, 0.2),
        st.floats(1, 20),
    ),
    max_size=60,
)


@given(LOOKS)
def test_it_never_fires_unless_a_whole_idle_time_lies_behind(
    looks: list[tuple[ServiceLoad | None, float | None, float]],
) -> None:
    watching = Watching()
    quiet = 0.0
    for load, share, after in looks:
        said = watching.look(load, MachineUsage(cpu_own=share), after=after)
        calm = load is not None and load.none and (share is None or share < SETTINGS.busy_below)
        if not calm:
            quiet = 0.0
            assert said.verdict not in {"idle", "due", "done"}
            continue
        quiet += after
        if said.verdict == "due":
            assert quiet >= SETTINGS.idle_seconds


@pytest.mark.parametrize(
    ("said", "load"),
    [
        ({"lanes": {"chat": {"depth": 2, "running": 1}, "rerank": {"depth": 3}}}, (1, 5)),
        ({"lanes": {"chat": {"sla_ms": 2000}, "embeddings": {"depth": 0}}}, (0, 0)),
        ({"lanes": {"chat": {"sla_ms": 2000}}}, None),
        ({"lanes": {}}, None),
        ({"lanes": {"chat": {"depth": 0, "running": None}}}, None),
        ({"lanes": {"chat": {"depth": True}}}, None),
        ({"lanes": {"chat": {"depth": -1}}}, None),
        ({"lanes": {"chat": {"depth": 0}, "x": 1}}, None),
        ({"lanes": [1]}, None),
        ({"error": {"code": "unauthorized"}}, None),
        ("no", None),
        (None, None),
    ],
)
def test_what_lanes_say_is_believed_only_where_it_is_certain(
    said: Any, load: tuple[int, int] | None
) -> None:
    assert ServiceLoad.of_lanes(said) == (None if load is None else ServiceLoad(*load))
