"""Jobs in ``/metrics``: what waits, what came of it, and what the runner does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families as families
from tests.api.test_jobs import followed, serving, submitted

from ondol.core.errors import BackendError, InvalidInput, Overloaded
from ondol.jobs.work import FAKE_TASK, FakeWork


async def figures(client: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    """Return the samples of jobs by name and label values."""
    text = (await client.get("/metrics")).text
    return {
        (sample.name.removeprefix("ondol_job_"), *sample.labels.values()): sample.value
        for family in families(text)
        for sample in family.samples
        if sample.name.startswith("ondol_job_")
    }


async def until(
    client: httpx.AsyncClient, true: Callable[[dict[tuple[str, ...], float]], bool]
) -> dict[tuple[str, ...], float]:
    """Return the figures when they are ``true``."""
    async with asyncio.timeout(20):
        while not true(now := await figures(client)):
            await asyncio.sleep(0.001)
    return now


def attempts(now: Mapping[tuple[str, ...], float]) -> dict[str, float]:
    """Return the attempts at the fake task by outcome."""
    return {
        key[1]: count for key, count in now.items() if key[::2] == ("attempts_total", FAKE_TASK)
    }


def fate(input: Mapping[str, Any], before: int) -> Exception | None:
    if input["text"] == "bad":
        return InvalidInput("no")
    return BackendError("died") if input["text"] == "late" and before == 0 else None


async def test_items_are_counted_while_they_wait_and_when_they_have_ended(tmp_path: Path) -> None:
    gate = asyncio.Event()
    work = FakeWork(script=fate, gate=gate)
    async with serving(tmp_path, work, jobs={"concurrency": 2}) as client:
        assert (await figures(client))["items", "queued"] == 0
        job = await submitted(client, "good", "bad", "late", "fine")
        async with asyncio.timeout(20):
            while work.running < 2:
                await asyncio.sleep(0.001)
        now = await figures(client)
        assert (now["items", "leased"], now["items", "queued"]) == (2, 2)
        assert now["oldest_queued_seconds",] > 0
        flags = [now["runner", flag] for flag in ("working", "paused", "shed")]
        assert flags == [1, 0, 0]
        gate.set()
        await followed(client, job)
        # The outcome is on disk a moment before it is counted.
        now = await until(client, lambda now: sum(attempts(now).values()) == 5)
        assert attempts(now) == {"done": 3, "failed": 1, "retried": 1}
        assert now["items", "queued"] == now["items", "done"] == now["oldest_queued_seconds",] == 0


async def test_a_refusal_is_no_attempt_and_pauses_the_runner(tmp_path: Path) -> None:
    work = FakeWork(script=lambda _, before: Overloaded("full", retry_after=300.0))
    async with serving(tmp_path, work) as client:
        await submitted(client, "one")
        # The pause begins a moment before the item is back on disk.
        now = await until(
            client, lambda now: now["items", "queued"] == now["runner", "paused"] == 1
        )
        assert not attempts(now)
