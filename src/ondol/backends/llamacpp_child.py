"""The generator process: one llama.cpp server on a loopback port, and nothing else.

Run by path, imports nothing of ours. Reads what to run as one JSON line from standard input: the
wheel's server with ``params``, or a ``command``. Reports ``{"address"}`` or ``{"error"}`` as one
line on standard output, logs to standard error. It ends when standard input closes or its parent
dies, also by ``kill -9``, and a command ends with it.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import select
import signal
import subprocess
import sys
from typing import Any, TextIO

_PR_SET_PDEATHSIG = 1
_PARENT_CHECK_SECONDS = 2.0
_STOP_SECONDS = 1.0
_LISTENING = re.compile(rb"listening on (http://127\.0\.0\.1:\d+)")
"""What a llama-server says when the model is loaded and its port is open."""


def main() -> None:
    setup = json.loads(sys.stdin.buffer.readline())
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the library prints belongs to the log
    die_with_parent(setup["parent"])
    if "command" in setup:
        run_command(setup, report)
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
    loras = params.pop("lora_adapters", [])
    common.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 0.0) for path in loras]
    for dotted, value in params.items():
        target: Any = common
        *path, name = dotted.split(".")
        for part in path:
            target = getattr(target, part)
        if not hasattr(target, name):
            raise AttributeError(f"this llama.cpp build has no parameter {dotted!r}")
        setattr(target, name, value)
    return xllamacpp.Server(common)


def run_command(setup: dict[str, Any], report: TextIO) -> None:
    """Run a llama-server until it ends or we are no longer wanted; never returns.

    Ends the way the command did, so that whoever waits for this process learns how.
    """
    own = os.getpid()
    key_read, key_write = os.pipe()
    os.write(key_write, setup["key"].encode() + b"\n")
    os.close(key_write)
    try:
        process = subprocess.Popen(
            # Neither arguments nor environment show the key to whoever lists processes.
            [*setup["command"], "--api-key-file", f"/dev/fd/{key_read}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(key_read,),
            # One thread runs here, so code between fork and exec is safe.
            preexec_fn=lambda: die_with_parent(own),
        )
    except OSError as error:
        tell(report, {"error": f"{setup['command'][0]}: {error.strerror}"})
        os._exit(1)
    os.close(key_read)
    wanted = relay(process, report, setup["parent"])
    if not wanted:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        os._exit(0)
    code = process.wait()
    if code < 0:
        os.kill(own, -code)
        code = 128 - code
    os._exit(code)


def relay(process: subprocess.Popen[bytes], report: TextIO, parent: int) -> bool:
    """Pass the command's log on and report its address; return whether it ended by itself."""
    pipe = -1 if process.stderr is None else process.stderr.fileno()
    line = b""
    said = False
    while os.getppid() == parent:
        readable, _, _ = select.select([0, pipe], [], [], _PARENT_CHECK_SECONDS)
        if 0 in readable and not os.read(0, 4096):
            return False
        if pipe not in readable:
            continue
        data = os.read(pipe, 65_536)
        if not data:
            return True
        os.write(2, data)
        if not said:
            line = (line + data)[-65_536:]
            if found := _LISTENING.search(line):
                tell(report, {"address": found[1].decode()})
                said = True
    return False


def wait_for_parent(parent: int) -> None:
    """Return when standard input has closed or this process has another parent."""
    while os.getppid() == parent:
        readable, _, _ = select.select([0], [], [], _PARENT_CHECK_SECONDS)
        if readable and not os.read(0, 4096):
            return


if __name__ == "__main__":
    main()
