"""With no job open a person's request costs jobs nothing: not one call into their package."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from tests.jobs.stage import staged

import ondol.jobs
from ondol.app.container import Container
from ondol.core.events import RequestFinished, Timing

JOBS = str(Path(ondol.jobs.__file__).parent)


async def calls_into_jobs(cause: Callable[[], object]) -> list[str]:
    """Return the functions of the jobs package that run for ``cause``, at once or soon after."""
    calls: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(JOBS):
            calls.append(frame.f_code.co_qualname)

    sys.setprofile(note)
    try:
        cause()
        for _ in range(20):
            await asyncio.sleep(0)
    finally:
        sys.setprofile(None)
    return calls


def a_request_ends(observe: Callable[[RequestFinished], None], lane: str = "embeddings") -> None:
    for _ in range(10):
        observe(RequestFinished(lane, "m", "ok", Timing()))


async def test_a_resting_runner_is_not_woken_by_requests(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await stage.rests()
        assert await calls_into_jobs(stage.runner.wake), "the listener hears the package"
        await stage.rests()
        assert await calls_into_jobs(lambda: a_request_ends(stage.traffic.observe)) == []


async def test_a_containers_requests_tell_jobs_nothing(container: Container) -> None:
    assert await calls_into_jobs(lambda: container.jobs.runner()), "the listener hears the package"
    assert await calls_into_jobs(lambda: a_request_ends(container.observer.observe)) == []
