"""What a command says and where: data on stdout, everything else on stderr.

With ``--json`` the data is one line of JSON; otherwise it is text for people. Colours only on a
terminal, and never with ``NO_COLOR``. Output is UTF-8 whatever the locale says.

How long work shows itself: a bar on a terminal, a line every few seconds elsewhere.

Both write to stderr and take the same updates, so that commands need not know which one runs.
"""

from __future__ import annotations

import io
import json
import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO

import click

from ondol.core.clock import Clock

if TYPE_CHECKING:
    from rich.progress import Progress


def force_utf8() -> None:
    """Make stdout and stderr UTF-8; what UTF-8 cannot hold (lone surrogates) is escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def plain(value: Any) -> Any:
    """Return ``value`` as JSON can hold it: dataclasses as objects, paths as text, tuples as lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    if isinstance(value, Path):
        return str(value)
    return value


class Output:
    """One command's voice. ``wrote_data`` tells whether a JSON document has gone to stdout."""

    def __init__(self, *, as_json: bool, stdout: TextIO, stderr: TextIO) -> None:
        self.as_json = as_json
        self.wrote_data = False
        self._stdout = stdout
        self._stderr = stderr

    def data(self, value: Any) -> None:
        """Write ``value`` to stdout as one JSON line."""
        click.echo(json.dumps(plain(value), ensure_ascii=False), file=self._stdout)
        self.wrote_data = True

    def text(self, text: str = "", *, newline: bool = True) -> None:
        """Write text for people to stdout, at once."""
        click.echo(text, file=self._stdout, nl=newline, color=_colour(self._stdout))
        self._stdout.flush()

    def note(self, text: str) -> None:
        """Write one line for people to stderr."""
        click.echo(text, file=self._stderr, color=_colour(self._stderr))

    def error(self, message: str, *, hint: str = "") -> None:
        """Write ``error: …`` and, where there is one, ``hint: …`` to stderr."""
        self.note(f"{click.style('error:', fg='red', bold=True)} {_one_line(message)}")
        if hint:
            self.note(f"{click.style('hint:', fg='cyan')} {_one_line(hint)}")

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Write aligned columns to stdout; wide (Korean) characters count as two."""
        lines = [[str(cell) for cell in row] for row in rows]
        widths = [
            max(display_width(cell) for cell in column)
            for column in zip(header, *lines, strict=True)
        ]
        self.text(click.style(_aligned(header, widths), bold=True))
        for line in lines:
            self.text(_aligned(line, widths))

    @property
    def interactive(self) -> bool:
        """Whether stderr is a terminal, where progress bars may move."""
        return self._stderr.isatty()

    @property
    def stderr(self) -> TextIO:
        return self._stderr


def display_width(text: str) -> int:
    """Return how many terminal columns ``text`` takes (Unicode UAX #11)."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def shorten(text: str, *, columns: int) -> str:
    """Return ``text`` on one line, cut with an ellipsis to at most ``columns`` columns."""
    line = " ".join(text.split())
    if display_width(line) <= columns:
        return line
    kept, width = [], 0
    for char in line:
        width += display_width(char)
        if width > columns - 1:
            break
        kept.append(char)
    return "".join(kept).rstrip() + "…"


def human_bytes(count: float) -> str:
    """Return ``count`` bytes for people: ``71.6 MB``."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (
        cell + " " * (width - display_width(cell))
        for cell, width in zip(cells, widths, strict=True)
    )
    return "  ".join(padded).rstrip()


def _colour(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _one_line(text: str) -> str:
    return " ".join(text.split())


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
