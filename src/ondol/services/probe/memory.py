"""This process's peak and steady memory, as the kernel counts it.

``VmHWM`` and not ``ru_maxrss``: the latter starts at what the parent had when it forked.
"""

from __future__ import annotations

import resource
from pathlib import Path

from ondol.core.memory import resident_bytes, trim

_STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """Return the most bytes this process has had in memory."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def steady_bytes() -> int:
    """Return what stays in memory once freed memory has been given back."""
    trim()
    return resident_bytes() or peak_bytes()
