"""``/v1/jobs``: hand in many items at once, follow them, read their results, cancel, resume.

A caller sees the jobs of its own API key. Results and events are streamed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Any, NoReturn

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from ondol.core.errors import InvalidInput
from ondol.jobs.intake import SubmittedItem, given_line, given_value
from ondol.jobs.job_results import JobView
from ondol.jobs.job_rows import OUTCOMES
from ondol.server.routing import (
    Open,
    TermsOf,
    TimingOf,
    media_type,
    parse_json,
    require_json,
    router,
    validated,
)
from ondol.server.schemas import (
    DeleteQuery,
    JobBody,
    PageQuery,
    ResultsQuery,
    ResumeBody,
    SubmitQuery,
)
from ondol.server.server_errors import json_response, problem_of
from ondol.server.streaming import EventStream, SseRelay, sse

routes = router("jobs")

_LINES = frozenset({"application/x-ndjson", "application/jsonl", "application/x-jsonlines"})
_NEVER = 86400.0
_SUBMIT_DOCS: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": JobBody.model_json_schema()},
            "application/x-ndjson": {"schema": {"type": "string"}},
        },
    }
}


class ResultStream(EventStream):
    """Results as they are read; when reading breaks off, so does the connection."""

    media_type = "application/x-ndjson"


@routes.post("/v1/jobs", openapi_extra=_SUBMIT_DOCS)
async def submit_job(
    request: Request,
    query: Annotated[SubmitQuery, Query()],
    container: Open,
    terms: TermsOf,
    timing: TimingOf,
) -> Response:
    """Hand in a job: JSON, or JSON Lines with `?task=`. When this answers 202 it is on disk.

    Items that cannot be worked fail alone, with their reasons.
    """
    body = await request.body()
    task, priority, key, items = _lines(query, body) if _is_lines(request) else _json(request, body)
    job = await container.jobs.service.submit(
        task,
        items,
        tenant=terms.tenant,
        share=terms.share,
        priority=priority,
        key=key,
        request_id=timing.request_id,
    )
    return json_response(asdict(job), status=202, headers={"location": f"/v1/jobs/{job.id}"})


@routes.get("/v1/jobs")
async def list_jobs(
    page: Annotated[PageQuery, Query()], container: Open, terms: TermsOf
) -> Response:
    """List jobs, newest first; ``next`` is the ``after`` of the next page."""
    found = await container.jobs.service.list(
        tenant=terms.tenant, limit=page.limit + 1, after=page.after
    )
    listed = found[: page.limit]
    return json_response(
        {
            "jobs": [asdict(job) for job in listed],
            "next": listed[-1].id if len(found) > page.limit else None,
        }
    )


@routes.get("/v1/jobs/{job}")
async def get_job(job: str, container: Open, terms: TermsOf) -> Response:
    """Return how far a job is."""
    return json_response(asdict(await container.jobs.service.show(job, tenant=terms.tenant)))


@routes.get("/v1/jobs/{job}/events")
async def follow_job(job: str, container: Open, terms: TermsOf) -> Response:
    """Follow a job: an event ``progress`` whenever it has changed, ``end`` when it has ended."""
    relay = await SseRelay.started(container.jobs.service.events(job, tenant=terms.tenant))
    return EventStream(
        relay,
        render=_event,
        failed=lambda error: sse(problem_of(error).envelope(), event="error"),
    )


@routes.get("/v1/jobs/{job}/results")
async def job_results(
    job: str, query: Annotated[ResultsQuery, Query()], container: Open, terms: TermsOf
) -> Response:
    """Return the outcome of each item that has one, by ordinal, as JSON Lines or CSV."""
    relay = await SseRelay.started(
        container.jobs.service.results(
            job,
            tenant=terms.tenant,
            format=query.format,
            after=query.after,
            limit=query.limit,
            states=OUTCOMES if query.status is None else (query.status,),
        )
    )
    kind = "application/x-ndjson" if query.format == "jsonl" else "text/csv; charset=utf-8"
    return ResultStream(
        relay,
        render=str.encode,
        failed=_break_off,
        headers={"content-type": kind},
        ping_seconds=_NEVER,
    )


@routes.post("/v1/jobs/{job}/resume")
async def resume_job(job: str, body: ResumeBody, container: Open, terms: TermsOf) -> Response:
    """Go on with a cancelled job, and with ``failed`` work its failed items again."""
    found = await container.jobs.service.resume(job, tenant=terms.tenant, failed=body.failed)
    return json_response(asdict(found), status=202)


@routes.delete("/v1/jobs/{job}")
async def cancel_job(
    job: str, query: Annotated[DeleteQuery, Query()], container: Open, terms: TermsOf
) -> Response:
    """Cancel a job: what is done stays. With ``purge``, remove one that has ended altogether."""
    service = container.jobs.service
    if query.purge:
        await service.delete(job, tenant=terms.tenant)
        return json_response({"id": job, "deleted": True})
    return json_response(asdict(await service.cancel(job, tenant=terms.tenant)))


def _is_lines(request: Request) -> bool:
    return media_type(request) in _LINES


def _lines(query: SubmitQuery, body: bytes) -> tuple[str, int, str, Iterable[SubmittedItem]]:
    if not query.task:
        raise InvalidInput(
            "task is missing", hint="send ?task=…", code="missing_field", param="task"
        )
    lines = (given_line(line) for line in body.splitlines() if line.strip())
    return query.task, query.priority, query.key, lines


def _json(request: Request, body: bytes) -> tuple[str, int, str, Iterable[SubmittedItem]]:
    require_json(request)
    said = validated(JobBody, parse_json(body))
    items = (given_value(item) for item in said.items)
    return said.task, said.options.priority, said.options.key, items


def _event(job: JobView) -> bytes:
    return sse(asdict(job), event="progress" if job.finished is None else "end")


def _break_off(error: BaseException) -> NoReturn:
    raise error
