"""One attempt at one item: its input read, its task run in the lane ``batch``, its result as JSON.

What becomes of an item that could not be worked: tried again, tried later, or over. Pure.

A refusal is the machine's state, not the item's fault: it costs no attempt, only patience. A failure
that may pass is tried again with exponential backoff and jitter; what used up all its time once only,
since that costs as much again. What cannot succeed is over at once.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass

from pydantic_core import to_json

from ondol.core.errors import (
    BackendError,
    Cancelled,
    DeadlineExceeded,
    DownloadFailed,
    OndolError,
    PayloadTooLarge,
    Refused,
    StoreError,
)
from ondol.core.events import Timing
from ondol.core.request_terms import RequestTerms
from ondol.core.settings.lane_sections import BATCH
from ondol.core.settings.operation_sections import JobSettings
from ondol.jobs.job_rows import ItemError, ItemLease
from ondol.jobs.work import Work
from ondol.telemetry.logs import request_id

_log = logging.getLogger("ondol.jobs")


async def attempt(lease: ItemLease, work: Work, *, settings: JobSettings) -> str:
    """Return the result as JSON text; raises what the task raised, and ``TimeoutError``."""
    name = f"{lease.job}.{lease.ordinal}"
    token = request_id.set(name)
    try:
        async with asyncio.timeout(settings.item_seconds):
            worked = await work.run(
                lease.task,
                json.loads(lease.input),
                terms=RequestTerms(lane=BATCH, tenant=lease.tenant),
                timing=Timing(request_id=name),
            )
        text = to_json({"result": worked.result, **worked.beside}, inf_nan_mode="null").decode()
    except (OndolError, TimeoutError):
        raise
    except Exception:
        _log.exception("%s stopped", name)
        raise
    finally:
        request_id.reset(token)
    if len(text) > settings.max_result_bytes:
        raise PayloadTooLarge(
            f"the result has {len(text)} characters, the limit is {settings.max_result_bytes}",
            hint="make the item smaller, or raise jobs.max_result_bytes",
            code="result_too_large",
        )
    return text


LONGEST_SECONDS = 300.0
_MAY_PASS = (BackendError, Cancelled, DeadlineExceeded, DownloadFailed, StoreError, TimeoutError)
_SPENT_ATTEMPTS = 2  # for what ran to the end of its time: perhaps the machine was busy, once
_SHOWN = 1000


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Not now, for this item and others: come back after ``seconds``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class RetryNow:
    """It failed and may succeed: another attempt after ``seconds``."""

    seconds: float
    error: ItemError


@dataclass(frozen=True, slots=True)
class AttemptOver:
    """It failed for good."""

    error: ItemError


Verdict = RetryLater | RetryNow | AttemptOver


def judge(
    error: Exception,
    lease: ItemLease,
    *,
    settings: JobSettings,
    now: float,
    streak: int,
    chance: Callable[[], float],
) -> Verdict:
    """Return what becomes of the item of ``lease`` that raised ``error``.

    ``streak`` is how many refusals came in a row before this one, ``now`` Unix seconds, ``chance``
    draws from [0, 1).
    """
    if isinstance(error, Refused):
        since = now if lease.refused_since is None else lease.refused_since
        if now - since >= settings.patience_seconds:
            return AttemptOver(_worn_out(error, now - since))
        pause = _backoff(streak, settings)
        asked = min(error.retry_after, LONGEST_SECONDS)
        return RetryLater(max(asked, pause) * (1.0 + 0.25 * chance()))
    attempts = min(settings.attempts, _SPENT_ATTEMPTS) if _spent(error) else settings.attempts
    if isinstance(error, _MAY_PASS) and lease.attempts + 1 < attempts:
        pause = _backoff(lease.attempts, settings)
        return RetryNow(pause * (0.5 + 0.5 * chance()), reason(error))
    return AttemptOver(reason(error))


def reason(error: Exception) -> ItemError:
    """Return ``error`` as an item keeps it; of an unexpected one only its kind."""
    if isinstance(error, OndolError):
        return ItemError(error.code, error.message[:_SHOWN], error.hint[:_SHOWN])
    if isinstance(error, TimeoutError):
        return ItemError(
            "item_timeout",
            "the item was not done within its time",
            "make it smaller, or raise jobs.item_seconds",
        )
    return ItemError(
        "internal",
        f"an unexpected {type(error).__name__} stopped this item",
        "look for the job's id in the log; report it",
    )


def _spent(error: Exception) -> bool:
    """Whether the item used up the time that its task, or the job, gives one."""
    if isinstance(error, OndolError):
        return error.code == "task_timeout"
    return isinstance(error, TimeoutError)


def _backoff(times: int, settings: JobSettings) -> float:
    return min(LONGEST_SECONDS, settings.backoff_seconds * 2.0 ** min(times, 30))


def _worn_out(error: Refused, seconds: float) -> ItemError:
    return ItemError(
        error.code,
        f"refused for {seconds:.0f} s: {error.message}"[:_SHOWN],
        "resume the job when the machine has room, or raise jobs.patience_seconds",
    )
