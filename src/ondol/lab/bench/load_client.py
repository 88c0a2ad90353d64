"""The client process: asks what a plan says when it says so, and writes down what came.

Run as ``python -m ondol.lab.bench.load_client PLAN RESULT``; both files are JSON. In a process
of its own, so that it shares no interpreter with a server. Open loop: every request is sent at its
scheduled time whatever became of the others, and times count from that, not from when the client
got round to sending (coordinated omission, after Gil Tene). Imports the standard library only.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ondol.lab.bench.load_exchange import StreamedReply, exchange

_LEAD_SECONDS = 0.1
_PATH = "/v1/chat/completions"


class Client:
    """Drives one plan: ``url``, ``headers``, ``timeout``, ``retries``, ``concurrency``, ``shots``.

    A shot is ``{at, body, leave_after}``. With ``concurrency`` 0 it is sent at ``at``; otherwise as
    soon as one of so many askers is free, and ``counted`` shots end the run.
    """

    def __init__(self, plan: Mapping[str, Any]) -> None:
        parts = urlsplit(plan["url"])
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or 80
        self._path = parts.path.rstrip("/") + _PATH
        self._timeout = float(plan["timeout"])
        self._retries = int(plan["retries"])
        self._concurrency = int(plan["concurrency"])
        self._shots = plan["shots"]
        self._counted = int(plan.get("counted") or len(self._shots))
        self._requests = [self._request(shot["body"], plan["headers"]) for shot in self._shots]
        self._start = 0.0
        self._records: dict[int, dict[str, Any]] = {}
        self._enough = asyncio.Event()

    async def run(self) -> dict[str, Any]:
        """Ask everything and return ``records``, ``seconds`` and the client's ``cpu_seconds``."""
        loop = asyncio.get_running_loop()
        gc.collect()
        gc.freeze()
        gc.disable()
        began = time.process_time()
        self._start = loop.time() + _LEAD_SECONDS
        await (self._closed() if self._concurrency else self._open())
        return {
            "records": [self._records[number] for number in sorted(self._records)],
            "seconds": loop.time() - self._start,
            "cpu_seconds": time.process_time() - began,
        }

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        running: list[asyncio.Task[None]] = []
        every_sent = asyncio.Event()

        def send(number: int, at: float) -> None:
            running.append(asyncio.create_task(self._ask(number, at)))
            if len(running) == len(self._shots):
                every_sent.set()

        for number, shot in enumerate(self._shots):
            at = self._start + float(shot["at"])
            loop.call_at(at, send, number, at)
        await every_sent.wait()
        await asyncio.gather(*running)

    async def _closed(self) -> None:
        """Keep the askers busy until ``counted`` answers are there; what runs then is left."""
        source = iter(range(len(self._shots)))

        async def asker() -> None:
            for number in source:
                await self._ask(number, asyncio.get_running_loop().time())
                if len(self._records) >= self._counted:
                    self._enough.set()

        self._start = asyncio.get_running_loop().time()
        askers: asyncio.Future[Any] = asyncio.gather(*(asker() for _ in range(self._concurrency)))
        enough: asyncio.Future[Any] = asyncio.create_task(self._enough.wait())
        await asyncio.wait({askers, enough}, return_when=asyncio.FIRST_COMPLETED)
        enough.cancel()
        askers.cancel()
        await asyncio.gather(askers, enough, return_exceptions=True)

    async def _ask(self, number: int, scheduled: float) -> None:
        """Ask until served or out of tries, obeying ``Retry-After``, and keep the record."""
        tries: list[StreamedReply] = []
        while True:
            reply = await exchange(
                self._host,
                self._port,
                self._requests[number],
                patience=self._timeout,
                leave_after=self._shots[number].get("leave_after"),
            )
            tries.append(reply)
            if reply.outcome != "refused" or len(tries) > self._retries:
                break
            await asyncio.sleep(reply.retry_after if reply.retry_after is not None else 1.0)
        self._records[number] = self._record(number, scheduled, tries)

    def _record(self, number: int, scheduled: float, tries: list[StreamedReply]) -> dict[str, Any]:
        last = tries[-1]
        return {
            "number": number,
            "at": scheduled - self._start,
            "late": tries[0].begun - scheduled,
            "first": last.tokens[0] - self._start if last.tokens else None,
            "last": last.tokens[-1] - self._start if last.tokens else None,
            "end": last.end - self._start,
            "gaps": [round(after - before, 5) for before, after in pairwise(last.tokens)],
            "outcome": last.outcome,
            "status": last.status,
            "code": last.code,
            "finish": last.finish,
            "usage": last.usage,
            "refusals": [
                {
                    "status": reply.status,
                    "code": reply.code,
                    "retry_after": reply.retry_after,
                    "begun": reply.begun - self._start,
                    "head": reply.head - self._start,
                }
                for reply in tries
                if reply.outcome == "refused"
            ],
        }

    def _request(self, body: Any, headers: Mapping[str, str]) -> bytes:
        data = json.dumps(body).encode()
        lines = [
            f"POST {self._path} HTTP/1.1",
            f"host: {self._host}:{self._port}",
            "content-type: application/json",
            "accept: text/event-stream",
            "connection: close",
            f"content-length: {len(data)}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def main(plan: Path, result: Path) -> None:
    """Run the plan of one file and write its result to another, whole or not at all."""
    client = Client(json.loads(plan.read_text("utf-8")))
    found = asyncio.run(client.run())
    partial = result.with_suffix(".partial")
    partial.write_text(json.dumps(found), "utf-8")
    os.replace(partial, result)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
