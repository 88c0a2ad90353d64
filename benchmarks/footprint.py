"""Size of the installation, time of ``ondol --help``, time until ``serve`` is ready with warm models.

``python -c pass`` is the baseline for ``--help``. Run: ``python benchmarks/footprint.py``.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx
from common import command, environment, report, table, working_home


def folder_mb(folder: Path) -> float:
    """Return the disk use of ``folder`` in MB, as du counts it."""
    return sum(f.lstat().st_blocks * 512 for f in folder.rglob("*")) / 1e6


def seconds(*args: str, runs: int = 7) -> float:
    """Return the median wall time of a command after one warm-up."""
    times = []
    for _ in range(runs + 1):
        before = time.monotonic()
        subprocess.run(args, stdout=subprocess.DEVNULL, check=True)
        times.append(time.monotonic() - before)
    return statistics.median(times[1:])


def ready_seconds(home: Path, runs: int = 3) -> list[float]:
    """Return, per start, the seconds from exec to the first 200 of /health/ready."""
    times = []
    for _ in range(runs):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        before = time.monotonic()
        server = subprocess.Popen(
            command("serve", "--port", str(port)), env=environment(home), stderr=subprocess.DEVNULL
        )
        try:
            while time.monotonic() - before < 60:
                try:
                    if (
                        httpx.get(f"http://127.0.0.1:{port}/health/ready", timeout=1).status_code
                        == 200
                    ):
                        times.append(time.monotonic() - before)
                        break
                except httpx.HTTPError:
                    pass
                time.sleep(0.02)
        finally:
            os.kill(server.pid, signal.SIGTERM)
            server.wait(60)
    return times


def main() -> None:
    size = folder_mb(Path(sys.prefix))
    bare = seconds(sys.executable, "-c", "pass")
    help_ = seconds(*command("--help"))
    ready = ready_seconds(working_home("footprint"))
    table(
        ("figure", "target", "measured"),
        [
            ("environment, MB", "< 900", round(size)),
            ("ondol --help, s", "< 0.5", round(help_, 3)),
            ("serve ready, s", "< 5", [round(t, 2) for t in ready]),
        ],
    )
    report(
        {
            "environment_mb": size,
            "help_seconds": help_,
            "help_ratio_to_bare_python": help_ / bare,
            "ready_seconds": ready,
        }
    )


if __name__ == "__main__":
    main()
