"""Running work from the command line: to its end, or until ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

import pytest

from ondol.cli.invocation import Invocation


def test_work_runs_to_its_end() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    assert Invocation().run(work()) == 7


def test_ctrl_c_counts_also_when_the_work_swallows_it() -> None:
    cleaned = False

    async def work() -> int:
        nonlocal cleaned
        with contextlib.suppress(asyncio.CancelledError):
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        cleaned = True
        return 7

    with pytest.raises(KeyboardInterrupt):
        Invocation().run(work())
    assert cleaned
