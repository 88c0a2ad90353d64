"""One look at how busy this machine is, and with what: shares, never absolute figures.

Telemetry takes it, the resource monitor and the watchdog judge it. Every field may be unknown.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """Shares from 0 to 1; ``None`` where the machine does not tell (or not yet).

    ``memory`` is what cannot be had any more, of the cgroup's limit or the machine's memory.
    ``cpu`` and ``cpu_own`` are shares of the cores this process may use since the look before: busy
    with anything, and with this service's process tree. ``cpu_lost`` is the share of the processor
    time this service wanted meanwhile that others had instead.
    ``gpu`` is the busiest GPU's utilisation and ``gpu_memory`` the fullest one's memory, by anyone;
    ``gpu_others`` the memory that others hold of the GPUs this service uses.
    """

    memory: float | None = None
    cpu: float | None = None
    cpu_own: float | None = None
    cpu_lost: float | None = None
    gpu: float | None = None
    gpu_memory: float | None = None
    gpu_others: float | None = None
