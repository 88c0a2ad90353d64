"""How long work shows itself: a bar on a terminal, a line every few seconds elsewhere.

Both write to stderr and take the same updates, so that commands need not know which one runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Protocol

from ondol.cli.output import Output, human_bytes, shorten
from ondol.core.clock import Clock

if TYPE_CHECKING:
    from rich.progress import Progress

Unit = Literal["bytes", "items"]
LINE_EVERY_SECONDS = 5.0


class Meter(Protocol):
    """Takes updates: ``done`` of ``total`` units (0: unknown), and what is being worked on."""

    def update(self, *, done: int, total: int, note: str) -> None: ...


class LineMeter:
    """One line at first, then at most one per ``LINE_EVERY_SECONDS``."""

    def __init__(self, output: Output, *, unit: Unit, clock: Clock) -> None:
        self._output = output
        self._unit = unit
        self._clock = clock
        self._next = clock.monotonic()

    def update(self, *, done: int, total: int, note: str) -> None:
        now = self._clock.monotonic()
        if now < self._next:
            return
        self._next = now + LINE_EVERY_SECONDS
        whole = f" of {_count(total, self._unit)} ({done / total:.0%})" if total else ""
        self._output.note(f"{note}: {_count(done, self._unit)}{whole}")


class BarMeter:
    """A moving bar."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None)

    def update(self, *, done: int, total: int, note: str) -> None:
        self._progress.update(
            self._task, completed=done, total=total or None, description=shorten(note, columns=40)
        )


@contextmanager
def meter(output: Output, *, unit: Unit, clock: Clock) -> Iterator[Meter]:
    """Yield the meter that suits ``output``; a bar is taken off the screen at the end."""
    if not output.interactive:
        yield LineMeter(output, unit=unit, clock=clock)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    counts: tuple[ProgressColumn, ...] = (
        (DownloadColumn(), TransferSpeedColumn()) if unit == "bytes" else (MofNCompleteColumn(),)
    )
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *counts,
        TimeRemainingColumn(),
        console=Console(file=output.stderr),
        transient=True,
    )
    with progress:
        yield BarMeter(progress)


def noting(shown: Meter) -> Callable[[str], None]:
    """Return a function that shows each step it is told of as one more done, of an unknown number."""
    done = 0

    def note(text: str) -> None:
        nonlocal done
        done += 1
        shown.update(done=done, total=0, note=text)

    return note


def _count(value: int, unit: Unit) -> str:
    return human_bytes(value) if unit == "bytes" else str(value)
