"""One attempt at one item: its input read, its task run in the lane ``batch``, its result as JSON."""

from __future__ import annotations

import asyncio
import json
import logging

from pydantic_core import to_json

from ondol.core.errors import OndolError, PayloadTooLarge
from ondol.core.job_section import JobSettings
from ondol.core.lanes import BATCH
from ondol.core.observe import Timing
from ondol.core.terms import Terms
from ondol.services.jobs.work import Work
from ondol.store.job_rows import ItemLease
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
                terms=Terms(lane=BATCH, tenant=lease.tenant),
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
