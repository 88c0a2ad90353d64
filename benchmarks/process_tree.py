"""The memory of a process and everything it started, sampled while it runs.

Proportional set size: a page that several processes share counts once among them, so that the sum
over the tree is what the machine really gives.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

_EVERY_SECONDS = 0.2


@dataclass(slots=True)
class Peak:
    """Megabytes at the worst moment: of the tree, of its root, and of all its children."""

    tree: float = 0.0
    root: float = 0.0
    children: float = 0.0
    samples: list[float] = field(default_factory=list)

    def take(self, root: float, children: float) -> None:
        """Count one sample."""
        self.tree = max(self.tree, root + children)
        self.root = max(self.root, root)
        self.children = max(self.children, children)
        self.samples.append(root + children)


class Watch:
    """Samples the tree under ``pid`` until the block ends; ``peak`` may be shared by several."""

    def __init__(self, pid: int, peak: Peak) -> None:
        self._pid = pid
        self._peak = peak
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(_EVERY_SECONDS):
            self._peak.take(megabytes(self._pid), sum(map(megabytes, below(self._pid))))


def below(pid: int) -> list[int]:
    """Return the processes started by ``pid``, and those that they started."""
    found: list[int] = []
    left = [pid]
    while left:
        for task in Path(f"/proc/{left.pop()}/task").glob("*"):
            try:
                started = [int(child) for child in (task / "children").read_text().split()]
            except OSError:
                continue
            found += started
            left += started
    return found


def megabytes(pid: int) -> float:
    """Return the proportional set size of one process; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0) / 1024
