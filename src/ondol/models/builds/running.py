"""Runs one build command in a session of its own and tells its lines; ends with all it started."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from ondol.core.errors import ModelError

_KEPT_LINES = 20
_STOP_SECONDS = 5.0


def run(command: Sequence[str], *, folder: Path, line: Callable[[str], None]) -> None:
    """Run ``command`` in ``folder``; ``line`` hears each line it writes.

    Raises ``ModelError`` with its last words when it fails. Whatever interrupts the caller ends
    the command and its compilers first.
    """
    last: deque[str] = deque(maxlen=_KEPT_LINES)
    with subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            for text in process.stdout or ():
                if text.strip():
                    last.append(text.strip())
                    line(text.strip())
        except BaseException:
            _end(process)
            raise
    if process.returncode:
        errors = [text for text in last if "error" in text.lower()] or list(last)[-1:]
        raise ModelError(
            f"{Path(command[0]).name} ended with exit code {process.returncode}: "
            f"{' / '.join(errors[:3]) or 'it gave no reason'}",
            hint="mend what it names and build again; the form llamacpp:portable needs no build",
        )


def _end(process: subprocess.Popen[str]) -> None:
    """End the whole session: ninja passes no signal on to its compilers."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(_STOP_SECONDS)
    except ProcessLookupError:
        return
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
