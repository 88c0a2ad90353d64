"""Samples of a made-up machine: whose processor time it was, and what of it was lost to others."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.telemetry.machine_files import MadeMachine, MadeProcess

from ondol.core.clock import ManualClock
from ondol.core.machine import CpuQuota, MachineUsage
from ondol.telemetry.readings import cpu_seconds, tree
from ondol.telemetry.usage import UsageReader

SERVER, CHILD, OTHER = 100, 101, 200


class Stage:
    """Two cores, a server with a generator beneath it, and another program."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(1000.0)
        self.machine = MadeMachine(
            folder / "proc",
            processes={
                1: MadeProcess(0, name="init) (x"),
                SERVER: MadeProcess(1),
                CHILD: MadeProcess(SERVER, name="llama (server)"),
                OTHER: MadeProcess(1),
            },
        )
        self.quota: CpuQuota | None = None
        self.memory = (1000, 250)
        self.pid: int | None = SERVER
        self.reader = UsageReader(
            pid=lambda: self.pid,
            clock=self.clock,
            proc=folder / "proc",
            quota=lambda: self.quota,
            cpus=lambda: frozenset({0, 1}),
            memory=lambda: self.memory,
        )
        self.machine.write()
        self.first = self.reader.read()

    def after(
        self, seconds: float, *, idle: float = 0, own: float = 0, waited: float = 0
    ) -> MachineUsage:
        self.clock.advance(seconds)
        self.machine.idle[0] += idle
        self.machine.processes[CHILD].cpu += own
        self.machine.processes[SERVER].waited += waited
        self.machine.write()
        return self.reader.read()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_the_first_sample_has_no_processor_shares(stage: Stage) -> None:
    assert stage.first == MachineUsage(memory=0.75)


def test_a_service_that_has_all_cores_lost_nothing(stage: Stage) -> None:
    """Eight threads of its own on two cores wait for each other, not for others."""
    used = stage.after(10, own=20, waited=60)
    assert (used.cpu, used.cpu_own, used.cpu_lost) == (1.0, 1.0, 0.0)


def test_an_idle_service_on_a_busy_machine_lost_nothing(stage: Stage) -> None:
    used = stage.after(10, own=0.1, waited=0.2)
    assert used.cpu == 1.0
    assert used.cpu_lost == pytest.approx(0.02)


def test_what_was_wanted_and_others_had_is_lost(stage: Stage) -> None:
    half = stage.after(10, own=10, waited=10)
    assert half.cpu_lost == pytest.approx(0.5)
    starved = stage.after(10, own=1, waited=19)
    assert starved.cpu_lost == pytest.approx(0.95)
    one_thread = stage.after(10, own=0.5, waited=9.5)
    assert one_thread.cpu_lost == pytest.approx(0.95)


def test_waiting_beyond_what_others_had_is_our_own_doing(stage: Stage) -> None:
    used = stage.after(10, own=16, waited=50)
    assert used.cpu_lost == pytest.approx(4 / 20)


def test_idle_cores_are_free(stage: Stage) -> None:
    used = stage.after(10, idle=10, own=10)
    assert (used.cpu, used.cpu_own, used.cpu_lost) == (0.5, 0.5, 0.0)


def test_a_quota_makes_the_cores_fewer(stage: Stage) -> None:
    """One core by quota: at its end nothing is left, however idle the host is."""
    stage.quota = CpuQuota(1.0, 50.0)
    stage.after(10)
    stage.quota = CpuQuota(1.0, 60.0)
    own = stage.after(10, idle=10, own=10, waited=30)
    assert (own.cpu, own.cpu_own, own.cpu_lost) == (1.0, 1.0, 0.0)
    stage.quota = CpuQuota(1.0, 70.0)
    neighbour = stage.after(10, idle=10, own=1, waited=30)
    assert neighbour.cpu_lost == pytest.approx(0.9)


def test_without_a_known_process_nothing_is_its_own(stage: Stage) -> None:
    stage.pid = None
    used = stage.after(10, idle=10)
    assert (used.cpu, used.cpu_own, used.cpu_lost) == (0.5, None, None)


def test_without_the_scheduler_s_figures_nothing_is_lost(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    for path in (tmp_path / "proc").rglob("schedstat"):
        path.unlink()
    stage.machine.schedstat = False
    used = stage.after(10, own=2)
    assert (used.cpu_own, used.cpu_lost) == (0.1, None)


def test_the_tree_and_the_time_of_children_that_ended(stage: Stage, tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    own = tree(SERVER, proc=proc)
    assert own == {SERVER, CHILD}
    assert tree(999, proc=proc) == frozenset()
    stage.machine.processes[CHILD].cpu = 5
    stage.machine.write()
    assert cpu_seconds(own, proc=proc) == 5
    # The child ended and was waited for: its time is the parent's now.
    stage.machine.processes[SERVER].reaped = 5
    stage.machine.write()
    assert cpu_seconds(frozenset({SERVER}), proc=proc) == 5
    assert cpu_seconds(frozenset({999}), proc=proc) is None


def test_a_machine_without_these_files_says_nothing(tmp_path: Path) -> None:
    clock = ManualClock()
    reader = UsageReader(clock=clock, proc=tmp_path / "none", memory=lambda: (0, 0))
    reader.read()
    clock.advance(1)
    assert reader.read() == MachineUsage()


def test_this_machine_can_be_read() -> None:
    reader = UsageReader()
    reader.read()
    used = reader.read()
    for share in (used.memory, used.cpu, used.cpu_own, used.cpu_lost):
        assert share is None or 0 <= share <= 1
    assert used.memory
