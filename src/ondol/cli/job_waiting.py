"""Staying until a job is done: following the process that works it, or working it here."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from ondol.cli.invocation import Invocation
from ondol.cli.progress import Meter, meter

if TYPE_CHECKING:
    from ondol.core.settings import Settings
    from ondol.services.container import Container
    from ondol.services.jobs.progress import JobView
    from ondol.services.jobs.runner import JobRunner


def somebody_works(settings: Settings) -> bool:
    """Whether a process works the jobs of this home."""
    from ondol.services.jobs.runner_lock import RunnerLock

    lock = RunnerLock(settings.home)
    try:
        return not lock.take()
    finally:
        lock.release()


async def wait_for(invocation: Invocation, job: str) -> JobView:
    """Return the job when it has ended; raises ``NotReady`` when who works it is gone.

    Where nobody works this home's jobs, all models are loaded and this process does.
    """
    if somebody_works(invocation.settings):
        async with invocation.container() as container:
            return await _follow(invocation, container, job, runner=None)
    rerank = invocation.settings.retrieval.rerank != "off"
    wanted = invocation.container(embedder=True, reranker=rerank, keywords=True, generator=True)
    async with wanted as container:
        runner = container.jobs.runner(only=job)
        runner.start()
        try:
            return await _follow(invocation, container, job, runner=runner)
        finally:
            await runner.close()


async def _follow(
    invocation: Invocation, container: Container, job: str, *, runner: JobRunner | None
) -> JobView:
    from ondol.core.errors import NotReady

    events = container.jobs.service.events(job, steady=True)
    try:
        with meter(invocation.output, unit="items", clock=invocation.clock) as shown:
            async with aclosing(events) as following:
                async for view in following:
                    _tell(shown, view)
                    if view.finished is not None:
                        return view
                    if runner is None and not somebody_works(invocation.settings):
                        break
    except BaseException:
        invocation.output.note(f"the job stays; go on with `ondol jobs resume {job} --wait`")
        raise
    raise NotReady(
        f"the process that worked {job} has ended",
        retry_after=5.0,
        hint=f"nothing is lost: start `ondol serve`, or `ondol jobs resume {job} --wait`",
        code="no_worker",
    )


def _tell(shown: Meter, view: JobView) -> None:
    ended = view.done + view.failed + view.cancelled
    rate = "" if view.items_per_second is None else f", {view.items_per_second:.2f}/s"
    left = "" if view.eta_seconds is None else f", {view.eta_seconds:.0f} s left"
    shown.update(
        done=ended, total=view.total, note=f"{view.task}, {view.failed} failed{rate}{left}"
    )
