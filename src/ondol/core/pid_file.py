"""Which process serves from a home: written by ``serve``, read before a signal is sent.

A process id alone proves nothing, because ids are used again. The file also holds when the process
started (in the kernel's ticks since boot), and a signal goes through a handle of that very process
(pidfd), so that it can never reach another. Linux only; elsewhere nobody is found.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ondol.core.private_files import private_folder

NAME = "serve.pid"
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A running server: its process id, when it started, and the port it listens on."""

    pid: int
    started_ticks: int
    port: int

    def terminate(self) -> bool:
        """Ask it to drain and end (SIGTERM); false when it is not there any more."""
        try:
            handle = os.pidfd_open(self.pid)
        except (OSError, AttributeError):
            return False
        try:
            # The handle holds the process; only now is a look at who it is worth anything.
            if _started_ticks(self.pid) != self.started_ticks:
                return False
            signal.pidfd_send_signal(handle, signal.SIGTERM)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True


@contextmanager
def announced(home: Path, *, port: int) -> Iterator[None]:
    """Name this process in ``home`` as its server for the length of a block.

    Where the kernel does not tell when a process started, nothing is written.
    """
    path, started = home / NAME, _started_ticks(os.getpid())
    if started is None:
        yield
        return
    mine = ServerProcess(os.getpid(), started, port)
    private_folder(home)
    draft = path.with_name(f"{NAME}.{mine.pid}")
    draft.write_text(json.dumps(asdict(mine)), "utf-8")
    draft.replace(path)
    try:
        yield
    finally:
        if _read(path) == mine:  # another server may have taken the name over
            path.unlink(missing_ok=True)


def server_process(home: Path) -> ServerProcess | None:
    """Return the server that runs from ``home``; ``None`` when none does, or it cannot be known."""
    found = _read(home / NAME)
    if found is None or _started_ticks(found.pid) != found.started_ticks:
        return None
    return found


def _read(path: Path) -> ServerProcess | None:
    try:
        said = json.loads(path.read_text("utf-8"))
        return ServerProcess(
            pid=int(said["pid"]), started_ticks=int(said["started_ticks"]), port=int(said["port"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _started_ticks(pid: int) -> int | None:
    """Return field 22 of ``/proc/<pid>/stat`` (proc_pid_stat(5)), or ``None`` when there is none."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
