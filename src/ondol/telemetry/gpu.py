"""What NVIDIA GPUs say of themselves, through the driver's own library (NVML) by ctypes.

No dependency: ``libnvidia-ml.so.1`` comes with the driver. Where it is absent, ``Gpus.open`` returns
``None``; what one GPU does not tell (MIG, old drivers) is ``None`` in its sample. Structures and
functions: NVML API reference, ``nvml.h``.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Mapping
from ctypes import Structure, byref, c_uint, c_ulonglong, c_void_p
from dataclasses import dataclass, field
from typing import Any, Self

_log = logging.getLogger("ondol.gpu")

_LIBRARY = "libnvidia-ml.so.1"
_SUCCESS = 0
_UNTOLD = 2**64 - 1
_MOST_PROCESSES = 256


class GpuUtilization(Structure):
    """``nvmlUtilization_t``: percent of the last sampling period, up to a second."""

    _fields_ = (("gpu", c_uint), ("memory", c_uint))


class GpuMemory(Structure):
    """``nvmlMemory_t``, in bytes."""

    _fields_ = (("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong))


class GpuProcess(Structure):
    """``nvmlProcessInfo_t`` as ``nvmlDeviceGetComputeRunningProcesses_v3`` fills it."""

    _fields_ = (
        ("pid", c_uint),
        ("usedGpuMemory", c_ulonglong),
        ("gpuInstanceId", c_uint),
        ("computeInstanceId", c_uint),
    )


@dataclass(frozen=True, slots=True)
class GpuSample:
    """One GPU now. ``busy`` is a share from 0 to 1; ``processes`` maps process ids to bytes held.

    In a container the ids may be the host's, or the bytes 0: then nothing can be told of whose
    memory it is.
    """

    busy: float | None
    used_bytes: int | None
    total_bytes: int | None
    processes: Mapping[int, int] = field(default_factory=dict)

    @property
    def memory(self) -> float | None:
        """Share of the memory that is in use, by anyone."""
        if self.used_bytes is None or not self.total_bytes:
            return None
        return self.used_bytes / self.total_bytes

    def others(self, own: frozenset[int]) -> float | None:
        """Share of the memory that processes other than ``own`` hold.

        ``None`` unless at least one of ``own`` is seen to hold some: else this GPU is not ours, or
        the driver does not tell whose memory it is.
        """
        ours = sum(held for pid, held in self.processes.items() if pid in own)
        if not ours or self.used_bytes is None or not self.total_bytes:
            return None
        return max(0, self.used_bytes - ours) / self.total_bytes


class Gpus:
    """The GPUs that the driver's library lists. Use from one thread at a time."""

    def __init__(self, library: Any) -> None:
        self._library = library
        count = c_uint()
        _check(library.nvmlDeviceGetCount_v2(byref(count)))
        self._devices = [self._handle(index) for index in range(count.value)]

    @classmethod
    def open(cls, *, library: Any = None) -> Self | None:
        """Return the GPUs of this machine, or ``None`` where there is no driver or no GPU.

        ``library`` takes the place of the driver's.
        """
        try:
            nvml = ctypes.CDLL(_LIBRARY) if library is None else library
            _check(nvml.nvmlInit_v2())
            found = cls(nvml)
        except (OSError, AttributeError) as error:
            _log.debug("no GPU is watched: %s", error)
            return None
        return found if found._devices else None

    def sample(self) -> list[GpuSample]:
        """Return one sample a GPU; milliseconds, and longer when a GPU has to wake up."""
        return [self._sample(device) for device in self._devices]

    def _handle(self, index: int) -> c_void_p:
        handle = c_void_p()
        _check(self._library.nvmlDeviceGetHandleByIndex_v2(c_uint(index), byref(handle)))
        return handle

    def _sample(self, device: c_void_p) -> GpuSample:
        load, memory = GpuUtilization(), GpuMemory()
        busy = self._told("nvmlDeviceGetUtilizationRates", device, byref(load))
        held = self._told("nvmlDeviceGetMemoryInfo", device, byref(memory))
        return GpuSample(
            busy=load.gpu / 100 if busy else None,
            used_bytes=memory.used if held else None,
            total_bytes=memory.total if held else None,
            processes=self._processes(device),
        )

    def _processes(self, device: c_void_p) -> dict[int, int]:
        count = c_uint(_MOST_PROCESSES)
        listed = (GpuProcess * _MOST_PROCESSES)()
        if not self._told(
            "nvmlDeviceGetComputeRunningProcesses_v3", device, byref(count), byref(listed)
        ):
            return {}
        held: dict[int, int] = {}
        for process in listed[: min(count.value, _MOST_PROCESSES)]:
            if process.usedGpuMemory != _UNTOLD:
                held[process.pid] = held.get(process.pid, 0) + process.usedGpuMemory
        return held

    def _told(self, function: str, *arguments: Any) -> bool:
        """Call a query; false where this GPU or driver does not answer it."""
        call = getattr(self._library, function, None)
        return call is not None and call(*arguments) == _SUCCESS


def _check(code: int) -> None:
    if code != _SUCCESS:
        raise OSError(f"NVML answers {code}")
