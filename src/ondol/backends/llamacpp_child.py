"""The generator process: one llama.cpp server on a loopback port, and nothing else.

Run by path, imports nothing of ours. Reads its parameters as one JSON line from standard input,
reports ``{"address"}`` or ``{"error"}`` as one line on standard output, logs to standard error.
It ends when standard input closes or its parent dies, also by ``kill -9``.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
from typing import Any, TextIO

_PR_SET_PDEATHSIG = 1
_PARENT_CHECK_SECONDS = 2.0


def main() -> None:
    setup = json.loads(sys.stdin.buffer.readline())
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the library prints belongs to the log
    die_with_parent(setup["parent"])
    try:
        server = open_server(setup["params"])
    except Exception as error:
        tell(report, {"error": str(error) or type(error).__name__})
        os._exit(1)
    for number in (signal.SIGINT, signal.SIGTERM):  # the library took them over
        signal.signal(number, signal.SIG_DFL)
    tell(report, {"address": server.listening_address})
    wait_for_parent(setup["parent"])
    # Destroying the server in mid-call can abort; there is nothing to save.
    os._exit(0)


def tell(report: TextIO, message: dict[str, str]) -> None:
    """Report the one line that the parent waits for."""
    report.write(json.dumps(message) + "\n")
    report.flush()


def die_with_parent(parent: int) -> None:
    """Ask Linux to kill this process with its parent; covers the time of loading too."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def open_server(params: dict[str, Any]) -> Any:
    """Return the running server; ``params`` maps dotted names of ``CommonParams`` to values."""
    import xllamacpp

    common = xllamacpp.CommonParams()
    for dotted, value in params.items():
        target: Any = common
        *path, name = dotted.split(".")
        for part in path:
            target = getattr(target, part)
        if not hasattr(target, name):
            raise AttributeError(f"this llama.cpp build has no parameter {dotted!r}")
        setattr(target, name, value)
    return xllamacpp.Server(common)


def wait_for_parent(parent: int) -> None:
    """Return when standard input has closed or this process has another parent."""
    while os.getppid() == parent:
        readable, _, _ = select.select([0], [], [], _PARENT_CHECK_SECONDS)
        if readable and not os.read(0, 4096):
            return


if __name__ == "__main__":
    main()
