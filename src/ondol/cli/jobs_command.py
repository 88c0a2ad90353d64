"""``ondol jobs``: a task over many items, durably: hand in, follow, read results, cancel, go on.

Works on the home's store; a server of the same home does the work. Where there is none, ``--wait``
works the job in this process.

Staying until a job is done: following the process that works it, or working it here.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

from ondol.cli.collections_command import confirm
from ondol.cli.invocation import Invocation
from ondol.cli.options import global_options
from ondol.cli.output import Meter, meter
from ondol.core.errors import InvalidInput

if TYPE_CHECKING:
    from ondol.app.container import Container
    from ondol.core.settings import Settings
    from ondol.jobs.job_results import JobView
    from ondol.jobs.job_service import JobService
    from ondol.jobs.runner import JobRunner


def somebody_works(settings: Settings) -> bool:
    """Whether a process works the jobs of this home."""
    from ondol.jobs.runner import RunnerLock

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


FAILED_EXIT = 1
T = TypeVar("T")


@click.group()
@global_options()
def jobs() -> None:
    """Run a task over many items, durably: what is handed in survives a crash and is worked once."""


@jobs.command()
@click.argument("task")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--wait", is_flag=True, help="Stay until it is done; without a server, work it here.")
@click.option(
    "--priority",
    type=click.IntRange(-100, 100),
    default=0,
    show_default=True,
    help="Higher goes first.",
)
@click.option("--key", default="", help="A name of your own: handing in the same again is one job.")
@global_options()
@click.pass_obj
def submit(
    invocation: Invocation, *, task: str, file: Path, wait: bool, priority: int, key: str
) -> None:
    """Hand in a job: TASK over the items of FILE, JSON Lines of {"id": …, "input": {…}}.

    An item that cannot be worked fails alone; the others go on. FILE may be - for stdin.
    """
    from ondol.jobs.intake import given_lines

    with _opened(file) as lines:
        items = given_lines(lines, most=invocation.settings.jobs.max_item_bytes)
        job = _ask(
            invocation, lambda service: service.submit(task, items, priority=priority, key=key)
        )
    if not wait:
        _say_who_works(invocation, job)
        _show(invocation, job)
        return
    _finish(invocation, job)


@jobs.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--after", metavar="JOB", help="Go on after this job.")
@global_options()
@click.pass_obj
def list_jobs(invocation: Invocation, *, limit: int, after: str | None) -> None:
    """List jobs, newest first."""
    found = _ask(invocation, lambda service: service.list(limit=limit, after=after))
    output = invocation.output
    if output.as_json:
        output.data({"jobs": found})
        return
    output.table(
        ("JOB", "TASK", "STATE", "TOTAL", "DONE", "FAILED", "ETA"),
        [(j.id, j.task, j.state, j.total, j.done, j.failed, eta(j)) for j in found],
    )
    if len(found) == limit:
        output.note(f"there may be more: --after {found[-1].id}")


@jobs.command()
@click.argument("job")
@global_options()
@click.pass_obj
def show(invocation: Invocation, *, job: str) -> None:
    """Show how far a job is, and why items failed."""
    _show(invocation, _ask(invocation, lambda service: service.show(job)))


@jobs.command()
@click.argument("job")
@global_options()
@click.pass_obj
def cancel(invocation: Invocation, *, job: str) -> None:
    """Cancel a job; what is done stays, and `resume` goes on with the rest."""
    _show(invocation, _ask(invocation, lambda service: service.cancel(job)))


@jobs.command()
@click.argument("job")
@click.option("--failed", is_flag=True, help="Also work again what failed.")
@click.option("--wait", is_flag=True, help="Stay until it is done; without a server, work it here.")
@global_options()
@click.pass_obj
def resume(invocation: Invocation, *, job: str, failed: bool, wait: bool) -> None:
    """Go on with a job that was cancelled, or that nobody works."""
    found = _ask(invocation, lambda service: service.resume(job, failed=failed))
    if wait and found.finished is None:
        _finish(invocation, found)
        return
    if found.finished is None:
        _say_who_works(invocation, found)
    _show(invocation, found)


@jobs.command()
@click.argument("job")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@global_options()
@click.pass_obj
def delete(invocation: Invocation, *, job: str, yes: bool) -> None:
    """Remove a job that has ended, with its inputs and results."""
    if not yes:
        confirm(f"delete {job!r} with its inputs and results?")
    _ask(invocation, lambda service: service.delete(job))
    if invocation.output.as_json:
        invocation.output.data({"deleted": job})
    else:
        invocation.output.text(f"deleted {job}")


@jobs.command()
@click.argument("job")
@click.option("--format", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True)
@click.option("--status", type=click.Choice(["done", "failed", "cancelled"]), help="Only these.")
@click.option("--after", type=click.IntRange(min=-1), default=-1, help="Go on after this ordinal.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many.")
@global_options()
@click.pass_obj
def results(
    invocation: Invocation,
    *,
    job: str,
    format: str,
    status: str | None,
    after: int,
    limit: int | None,
) -> None:
    """Write the outcome of every item that has one to stdout: a JSON line (or CSV row) each."""
    options: dict[str, Any] = {"format": format, "after": after, "limit": limit}
    if status is not None:
        options["states"] = (status,)
    output = invocation.output

    async def write(service: JobService) -> None:
        async for page in service.results(job, **options):
            output.wrote_data = True
            output.text(page, newline=False)

    _ask(invocation, write)


def _ask(invocation: Invocation, question: Callable[[JobService], Awaitable[T]]) -> T:
    """Return the answer of the job service over the home's store, without any model."""

    async def work() -> T:
        async with invocation.container() as container:
            return await question(container.jobs.service)

    return invocation.run(work())


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    try:
        lines = file.open("rb")
    except OSError as error:
        raise InvalidInput(
            f"{file} cannot be read: {error.strerror}",
            hint='name a file of JSON Lines: {"id": "r1", "input": {…}}',
            param="file",
        ) from None
    with lines:
        yield lines


def _finish(invocation: Invocation, job: JobView) -> None:
    ended = invocation.run(wait_for(invocation, job.id))
    _show(invocation, ended)
    if ended.state != "done":
        raise click.exceptions.Exit(FAILED_EXIT)


def _say_who_works(invocation: Invocation, job: JobView) -> None:
    if job.finished is None and not somebody_works(invocation.settings):
        invocation.output.note(
            f"nobody works jobs now: start `ondol serve`, or `ondol jobs resume {job.id} --wait`"
        )


def _show(invocation: Invocation, job: JobView) -> None:
    output = invocation.output
    if output.as_json:
        output.data(job)
        return
    output.text(
        f"{job.id}  {job.task}  {click.style(job.state, bold=True)}  "
        f"{job.done} of {job.total} done, {job.failed} failed, {job.cancelled} cancelled, "
        f"{job.running} running{eta_phrase(job)}"
    )
    for code, count in sorted(job.errors.items(), key=lambda pair: -pair[1]):
        output.text(f"    {count} × {code}")


def eta(job: JobView) -> str:
    """Return when it will be done, for people; empty where nobody can say."""
    if job.eta_seconds is None:
        return ""
    minutes, seconds = divmod(round(job.eta_seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def eta_phrase(job: JobView) -> str:
    """Return ``, done in about …``, or nothing."""
    return f", done in about {found}" if (found := eta(job)) else ""
