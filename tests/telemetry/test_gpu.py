"""GPUs through a stand-in for the driver's library, called as the real one is."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass, field
from typing import Any

import pytest

from ondol.core.clock import ManualClock
from ondol.core.machine import MachineUsage
from ondol.telemetry.gpu import GpuMemory, GpuProcess, Gpus, GpuUtilization
from ondol.telemetry.usage import UsageReader

GB = 10**9
OURS = os.getpid()
NOT_SUPPORTED, UNKNOWN = 3, 999


def into(reference: Any) -> Any:
    """Return what ``byref`` points to."""
    return reference._obj


@dataclass
class FakeGpu:
    busy: int | None = 0
    used: int = 0
    total: int = 80 * GB
    processes: dict[int, int] = field(default_factory=dict)


@dataclass
class FakeNvml:
    """``libnvidia-ml.so.1`` as far as it is used."""

    gpus: list[FakeGpu]
    init: int = 0

    def nvmlInit_v2(self) -> int:
        return self.init

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        into(count).value = len(self.gpus)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: ctypes.c_uint, handle: Any) -> int:
        into(handle).value = index.value + 1
        return 0

    def _gpu(self, handle: ctypes.c_void_p) -> FakeGpu:
        return self.gpus[(handle.value or 0) - 1]

    def nvmlDeviceGetUtilizationRates(self, handle: ctypes.c_void_p, load: Any) -> int:
        busy = self._gpu(handle).busy
        if busy is None:
            return NOT_SUPPORTED
        into(load).gpu = busy
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: ctypes.c_void_p, memory: Any) -> int:
        gpu = self._gpu(handle)
        into(memory).total, into(memory).used = gpu.total, gpu.used
        return 0

    def nvmlDeviceGetComputeRunningProcesses_v3(
        self, handle: ctypes.c_void_p, count: Any, listed: Any
    ) -> int:
        processes = self._gpu(handle).processes
        into(count).value = len(processes)
        for place, (pid, held) in enumerate(processes.items()):
            into(listed)[place].pid = pid
            into(listed)[place].usedGpuMemory = held
        return 0


def usage(*gpus: FakeGpu) -> MachineUsage:
    found = Gpus.open(library=FakeNvml(list(gpus)))
    return UsageReader(gpus=found, clock=ManualClock()).read()


def test_the_structures_are_laid_out_as_the_header_says() -> None:
    """nvml.h on 64 bits: a process is pid, 4 bytes of padding, memory, two instance ids."""
    assert ctypes.sizeof(GpuUtilization) == 8
    assert ctypes.sizeof(GpuMemory) == 24
    assert ctypes.sizeof(GpuProcess) == 24
    assert GpuProcess.usedGpuMemory.offset == 8


def test_a_machine_without_a_driver_or_gpu_has_none() -> None:
    assert Gpus.open(library=FakeNvml([])) is None
    assert Gpus.open(library=FakeNvml([FakeGpu()], init=UNKNOWN)) is None
    assert Gpus.open(library=object()) is None


def test_the_busiest_and_the_fullest_gpu_are_told() -> None:
    seen = usage(FakeGpu(busy=7, used=40 * GB), FakeGpu(busy=92, used=8 * GB))
    assert (seen.gpu, seen.gpu_memory) == (0.92, 0.5)


def test_a_gpu_that_does_not_tell_is_unknown() -> None:
    assert usage(FakeGpu(busy=None)).gpu is None


def test_memory_of_others_counts_on_our_gpu_only() -> None:
    ours, theirs = {OURS: 30 * GB, 2**30: 40 * GB}, {2**30: 79 * GB}
    seen = usage(FakeGpu(used=72 * GB, processes=ours), FakeGpu(used=79 * GB, processes=theirs))
    assert seen.gpu_others == pytest.approx(42 / 80)


@pytest.mark.parametrize("held", [0, 2**64 - 1])
def test_where_it_is_not_told_whose_memory_it_is_nobody_is_blamed(held: int) -> None:
    """In a container the ids may be the host's and the bytes 0: our own memory is not others'."""
    assert usage(FakeGpu(used=72 * GB, processes={OURS: held})).gpu_others is None
    assert usage(FakeGpu(used=72 * GB, processes={2**30: 70 * GB})).gpu_others is None
