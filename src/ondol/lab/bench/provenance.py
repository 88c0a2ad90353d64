"""Where figures come from: this machine, this commit, this day. Stands beside every result."""

from __future__ import annotations

import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ondol.core.machine import describe

_GIT_SECONDS = 5.0


def provenance() -> dict[str, Any]:
    """Return ``cpu``, ``cores``, ``memory_mb``, ``commit``, ``version``, ``python`` and ``at``."""
    machine = describe()
    return {
        "cpu": machine.cpu,
        "cores": machine.cores,
        "memory_mb": round(machine.memory_bytes / 1e6),
        "commit": _commit(),
        "version": version("ondol"),
        "python": platform.python_version(),
        "at": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _commit() -> str:
    """Return the commit this package was checked out at; an installed wheel has none."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
