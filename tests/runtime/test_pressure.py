"""The resource monitor: steps down at once, back up slowly, never flapping, never below one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.core.clock import ManualClock
from ondol.core.events import PressureChanged
from ondol.core.machine import MachineUsage
from ondol.core.settings.operation_sections import ResourceSettings
from ondol.core.timers import ManualTimers
from ondol.runtime.pressure import (
    CALM_SAMPLES,
    NO_PRESSURE,
    Pressure,
    ResourceMonitor,
    ResourceWatch,
)

SETTINGS = ResourceSettings()
SHARES = st.lists(st.floats(0, 1), max_size=40)
RANK = {"none": 0, "high": 1, "critical": 2}


def levels(shares: list[float], settings: ResourceSettings = SETTINGS) -> list[Pressure]:
    monitor = ResourceMonitor(settings)
    return [monitor.feed(MachineUsage(memory=share)) for share in shares]


def test_steps_down_at_once_and_up_one_by_one() -> None:
    seen = levels([0.5, 0.9, 0.91, 0.92, 0.92])
    assert [p.concurrency for p in seen] == [1.0, 0.5, 0.25, 0.25, 0.25]
    assert [p.level for p in seen] == ["none", "high", "high", "critical", "critical"]
    assert [p.shed for p in seen] == [False, False, False, True, True]
    seen = levels([0.96, *[0.7] * 3 * CALM_SAMPLES])
    assert [p.level for p in seen] == ["critical"] * 2 + ["high"] * 4 + ["none"]
    assert seen[-1] == NO_PRESSURE


def test_calm_counts_only_without_a_break() -> None:
    """A use that dips below the release line now and then gives no step back."""
    seen = levels([0.96, *[0.7, 0.85] * 10])
    assert {p.level for p in seen} == {"critical"}


def test_says_what_is_short_by_how_much_and_when_to_come_back() -> None:
    shed = levels([0.96])[0]
    assert shed.reasons == ("memory (96% in use, the limit is 90%)",)
    assert shed.retry_after == CALM_SAMPLES * SETTINGS.sample_seconds
    monitor = ResourceMonitor(SETTINGS)
    both = monitor.feed(MachineUsage(memory=0.1, cpu_lost=0.93, gpu_others=0.99))
    assert [reason.partition(" (")[0] for reason in both.reasons] == [
        "processor time",
        "GPU memory",
    ]
    assert "taken by others" in both.reasons[0]


def test_a_service_that_uses_all_itself_is_under_no_pressure() -> None:
    """A processor or GPU at 100 % is what generating on it looks like."""
    monitor = ResourceMonitor(SETTINGS)
    for _ in range(10):
        full = MachineUsage(
            memory=0.5, cpu=1.0, cpu_own=1.0, cpu_lost=0.0, gpu=1.0, gpu_memory=0.97
        )
        assert monitor.feed(full) == NO_PRESSURE


@pytest.mark.parametrize("name", ["memory", "cpu", "gpu"])
def test_each_resource_can_be_turned_off(name: str) -> None:
    usage = MachineUsage(
        **{{"memory": "memory", "cpu": "cpu_lost", "gpu": "gpu_others"}[name]: 1.0}
    )
    assert ResourceMonitor(SETTINGS).feed(usage).shed
    off = ResourceSettings.model_validate({f"{name}_percent": 0})
    assert ResourceMonitor(off).feed(usage) == NO_PRESSURE


def test_what_cannot_be_read_changes_nothing() -> None:
    monitor = ResourceMonitor(SETTINGS)
    assert monitor.feed(MachineUsage()) == NO_PRESSURE
    before = monitor.feed(MachineUsage(memory=0.96))
    for _ in range(10):
        assert monitor.feed(MachineUsage()).level == before.level


@given(st.lists(st.floats(0.8, 0.8999), max_size=40), st.sampled_from([0.5, 0.91, 0.96]))
def test_between_the_lines_nothing_changes(band: list[float], first: float) -> None:
    seen = levels([first, *band])
    assert {p.level for p in seen} == {seen[0].level}
    assert {p.concurrency for p in seen} == {seen[0].concurrency}


@given(st.lists(st.booleans(), max_size=60))
def test_swinging_around_one_line_does_not_flap(high: list[bool]) -> None:
    """A use that swings over and under the threshold, and never below release, only goes down."""
    seen = [p.concurrency for p in levels([0.92 if now else 0.88 for now in high])]
    assert seen == sorted(seen, reverse=True)


@given(SHARES, st.integers(1, 64))
def test_one_request_can_always_run(shares: list[float], slots: int) -> None:
    for pressure in levels(shares):
        assert 0 < pressure.concurrency <= 1
        assert max(1, int(slots * pressure.concurrency)) >= 1
        assert pressure.shed == (pressure.level == "critical")
        assert (pressure.concurrency == 1) == (pressure.level == "none")
        assert bool(pressure.reasons) == (pressure.level != "none")
        assert pressure.retry_after > 0


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=60))
def test_more_use_never_means_less_pressure(pairs: list[tuple[float, float]]) -> None:
    less = levels([min(pair) for pair in pairs])
    more = levels([max(pair) for pair in pairs])
    for low, high in zip(less, more, strict=True):
        assert RANK[low.level] <= RANK[high.level]
        assert low.concurrency >= high.concurrency


@given(SHARES)
def test_calm_always_ends_it(shares: list[float]) -> None:
    assert levels([*shares, *[0.1] * 3 * CALM_SAMPLES])[-1] == NO_PRESSURE


def test_a_release_line_that_never_releases_is_refused() -> None:
    with pytest.raises(ValueError, match="memory_percent = 50 is not above release_percent = 80"):
        ResourceSettings(memory_percent=50)
    assert ResourceSettings(memory_percent=50, release_percent=40).memory_percent == 50


class Stage:
    """A watch whose samples, timers and listeners are the test's."""

    def __init__(self) -> None:
        self.timers = ManualTimers(ManualClock())
        self.usage = MachineUsage(memory=0.5)
        self.failing = False
        self.pressed: list[Pressure] = []
        self.events: list[PressureChanged] = []
        self.watch = ResourceWatch(
            self.read,
            settings=SETTINGS,
            timers=self.timers,
            press=self.pressed.append,
            changed=self.events.append,
        )

    def read(self) -> MachineUsage:
        if self.failing:
            raise OSError("no /proc")
        return self.usage


async def test_a_watch_tells_pressure_and_level_changes() -> None:
    stage = Stage()
    await stage.watch.look()
    assert (stage.pressed, stage.events) == ([], [])
    stage.usage = MachineUsage(memory=0.96)
    assert (await stage.watch.look()).shed
    await stage.watch.look()
    assert [p.level for p in stage.pressed] == ["critical"]
    (event,) = stage.events
    assert (event.level, event.before, event.shed) == ("critical", "none", True)
    stage.usage = MachineUsage(memory=0.1)
    for _ in range(3 * CALM_SAMPLES):
        await stage.watch.look()
    assert [event.level for event in stage.events] == ["critical", "high", "none"]
    assert stage.pressed[-1] == NO_PRESSURE


async def test_a_sample_that_fails_leaves_what_holds(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    stage.usage = MachineUsage(memory=0.96)
    held = await stage.watch.look()
    stage.failing = True
    assert await stage.watch.look() == await stage.watch.look() == held
    assert caplog.text.count("could not look") == 1
