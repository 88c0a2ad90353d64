"""The client process: asks what a plan says when it says so, and writes down what came.

Run as ``python -m ondol.lab.bench.load_measuring PLAN RESULT``; both files are JSON. In a process
of its own, so that it shares no interpreter with a server. Open loop: every request is sent at its
scheduled time whatever became of the others, and times count from that, not from when the client
got round to sending (coordinated omission, after Gil Tene). Imports the standard library only.

What must be known of a server before it is loaded: its tokens, its prefill speed, its capacity.

Each is measured on the server itself, alone, before any load.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from ondol.core.errors import BackendError
from ondol.lab.bench.load_exchange import StreamedReply, exchange
from ondol.lab.bench.load_plan import LoadRun, Manner, Shot, Target, ask
from ondol.lab.bench.load_prompts import Count, Messages, PromptMaker, Yardstick
from ondol.lab.bench.request_trace import Row
from ondol.lab.evaluate.statistics import percentile

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


LADDER = (64, 128, 256, 512, 1024, 2048)
_TURNS = 3
_CALL_SECONDS = 120.0


def counter(target: Target, http: httpx.Client) -> Count:
    """Return a function that lets the server count a prompt, at the price of one token's answer."""

    def count(messages: Messages) -> int:
        body = {"model": target.model, "messages": messages, "max_tokens": 1, "temperature": 0}
        url = f"{target.url}/v1/chat/completions"
        try:
            answer = http.post(url, json=body, headers=dict(target.headers))
        except httpx.HTTPError as error:
            raise BackendError(
                f"{target.url} does not answer: {error!r}", hint="is the server running?"
            ) from None
        if answer.status_code != 200:
            raise BackendError(
                f"{target.url} answered {answer.status_code}: {answer.text[:200]}",
                hint="name a chat model it serves with --model",
            )
        return int(answer.json()["usage"]["prompt_tokens"])

    return count


def yardstick_of(target: Target) -> Yardstick:
    """Return what text costs in tokens on ``target``. Raises ``BackendError``."""
    with httpx.Client(timeout=_CALL_SECONDS, trust_env=False) as http:
        return Yardstick.measure(counter(target, http))


def prefill_seconds(
    target: Target, yardstick: Yardstick, *, context_tokens: int, seed: int
) -> list[tuple[int, float]]:
    """Return (prompt tokens, median seconds to the first token alone), ascending."""
    sizes = [size for size in LADDER if size < context_tokens - 1]
    maker = PromptMaker(yardstick, seed=seed)
    rows = [Row(0.0, size, 1) for size in sizes for _ in range(_TURNS)]
    shots = shots_now(maker, rows, first=9_000_000)
    seen = ask(target, shots, Manner(concurrency=1)).seen
    found = []
    for size in sizes:
        mine = [one for one in seen if one.row.prompt_tokens == size and one.ttft is not None]
        if mine:
            tokens = percentile([one.prompt_tokens for one in mine], 0.5)
            found.append((round(tokens), percentile([one.ttft or 0.0 for one in mine], 0.5)))
    if not found:
        raise BackendError(
            "no prompt was answered while its speed was measured",
            hint="see the server's log; a deadline or a full queue may refuse everything",
        )
    return found


def tokens_within(ladder: Sequence[tuple[int, float]], seconds: float) -> float:
    """Return how many prompt tokens take ``seconds`` alone, between or beyond the measured sizes."""
    if seconds <= ladder[0][1] or len(ladder) == 1:
        return ladder[0][0] * seconds / max(ladder[0][1], 1e-9)
    for (few, soon), (many, late) in pairwise(ladder):
        if seconds <= late and late > soon:
            return few + (many - few) * (seconds - soon) / (late - soon)
    (few, soon), (many, late) = ladder[-2:]
    return many + (many - few) * (seconds - late) / max(late - soon, 1e-9)


def capacity(target: Target, shots: Sequence[Shot], *, slots: int, counted: int) -> float:
    """Return completed requests a second with ``slots`` askers that never pause.

    More shots than are ``counted`` keep the slots busy to the end. Raises ``BackendError``.
    """
    run: LoadRun = ask(target, shots, Manner(concurrency=slots, counted=counted))
    done = [one for one in run.seen if one.outcome == "ok"]
    if not done:
        raise BackendError(
            "no request was completed while the capacity was measured",
            hint="see the server's log; a deadline or a full queue may refuse everything",
        )
    return len(done) / max(one.end for one in done)


def shots_now(maker: PromptMaker, rows: Sequence[Row], *, first: int) -> list[Shot]:
    """Return ``rows`` as shots without a schedule, their texts numbered from ``first``."""
    return [
        Shot(0.0, row, maker.messages(row, number=first + index)) for index, row in enumerate(rows)
    ]
