"""The child process of a probe: loads one encoder and runs what its parent asks, until its input ends.

Takes one JSON object a line on standard input and answers one a line on what was standard output;
whatever a library prints goes to standard error. Peak memory is this process's own, so it is the
encoder's. Requests name an operation of ``Operations`` in ``op``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from ondol.core.errors import OndolError
from ondol.lab.probe.operations import Operations


def main() -> None:
    """Serve requests until the parent closes our input."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    _send(replies, {"ready": True})
    operations = Operations()
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):  # the parent has gone
        for line in sys.stdin:
            _send(replies, _answer(operations, json.loads(line)))


def _answer(operations: Operations, request: dict[str, Any]) -> Mapping[str, Any]:
    name = request.pop("op")
    try:
        return asyncio.run(operations.perform(name, request))
    except OndolError as error:
        return {"error": error.message, "hint": error.hint}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "hint": ""}


def _send(replies: TextIO, value: Mapping[str, Any]) -> None:
    replies.write(json.dumps(value) + "\n")
    replies.flush()


if __name__ == "__main__":
    main()
