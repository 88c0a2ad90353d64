"""A made-up machine: the files of ``/proc`` and ``/sys/fs/cgroup`` that usage is read from."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class MadeProcess:
    parent: int
    cpu: float = 0.0
    reaped: float = 0.0
    waited: float = 0.0
    name: str = "ondol"


@dataclass
class MadeMachine:
    """Seconds so far; ``write`` puts them into the files."""

    folder: Path
    idle: list[float] = field(default_factory=lambda: [0.0, 0.0])
    processes: dict[int, MadeProcess] = field(default_factory=dict)
    schedstat: bool = True

    def write(self) -> None:
        rows = [
            f"cpu{number} 1 2 3 {int(idle * TICKS)} 0 0 0 0 0 0"
            for number, idle in enumerate(self.idle)
        ]
        self.folder.mkdir(exist_ok=True)
        (self.folder / "stat").write_text("\n".join(["cpu 9 9 9 9 9 9", *rows, "intr 1"]))
        for pid, process in self.processes.items():
            self._write(pid, process)

    def _write(self, pid: int, process: MadeProcess) -> None:
        folder = self.folder / str(pid)
        (folder / "task" / str(pid)).mkdir(parents=True, exist_ok=True)
        times = [int(process.cpu * TICKS), 0, int(process.reaped * TICKS), 0]
        fields = ["S", str(process.parent), *["0"] * 9, *map(str, times), *["0"] * 20]
        (folder / "stat").write_text(f"{pid} ({process.name}) {' '.join(fields)}")
        if self.schedstat:
            waited = int(process.waited * 1e9)
            (folder / "task" / str(pid) / "schedstat").write_text(f"5 {waited} 7\n")
