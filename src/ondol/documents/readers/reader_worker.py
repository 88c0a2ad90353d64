"""The child process of ``IsolatedReader``: reads files on request until its input ends.

Takes frames on standard input and answers on what was standard output; anything a library prints
goes to standard error. Limits its own memory, and its processor time per file, so that it cannot
outlive a killed parent by much.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ondol.documents.readers import ReadLimits, read, read_bytes
from ondol.documents.readers.reader_contract import ReadItems
from ondol.documents.readers.reader_process import HEADER, decode_body, encode_frame, pack_item

_BATCH_ITEMS = 64
_BATCH_CHARS = 500_000
_CPU_MARGIN_SECONDS = 5


def main() -> None:
    """Serve requests; the one argument is the memory limit in bytes (0 for none)."""
    memory = int(sys.argv[1])
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    _send(replies, {"ready": True})
    requests = sys.stdin.buffer
    with contextlib.suppress(BrokenPipeError):  # the parent has gone
        while (header := requests.read(HEADER.size)) and len(header) == HEADER.size:
            request = decode_body(requests.read(HEADER.unpack(header)[0]))
            _answer(replies, _items(request, requests))


def _items(request: Mapping[str, Any], requests: BinaryIO) -> ReadItems:
    limits = ReadLimits(**request["limits"])
    _limit_processor_time(limits.seconds)
    if request["size"] is None:
        return read(Path(request["path"]), limits=limits)
    data = requests.read(request["size"])
    return read_bytes(data, name=request["path"], limits=limits)


def _answer(replies: BinaryIO, items: ReadItems) -> None:
    batch: list[dict[str, Any]] = []
    chars = 0
    for item in items:
        packed = pack_item(item)
        batch.append(packed)
        chars += len(packed.get("text", ""))
        if len(batch) >= _BATCH_ITEMS or chars >= _BATCH_CHARS:
            _send(replies, {"items": batch})
            batch, chars = [], 0
    _send(replies, {"items": batch, "end": True})


def _send(replies: BinaryIO, value: Mapping[str, Any]) -> None:
    replies.write(encode_frame(value))
    replies.flush()


def _limit_processor_time(seconds: float) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(usage.ru_utime + usage.ru_stime + seconds) + _CPU_MARGIN_SECONDS
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))


if __name__ == "__main__":
    main()
