"""One batch through an encoder, with a value or an error for every item.

A batch that fails is halved until the item that fails is alone. A batch that runs out of memory is
halved once, and each half tried once more. Knows no queue and no thread.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ondol.backends.protocols import EncoderBackend
from ondol.core.errors import BackendError, OndolError, OutOfMemory
from ondol.core.types import Encoded

_log = logging.getLogger("ondol.batcher")

Value = NDArray[np.float32] | OndolError


@dataclass(slots=True)
class BatchOutcome:
    """One value per item, in order; ``ran_out`` when memory did not suffice at some point."""

    values: list[Value]
    ran_out: bool = False
    failures: int = 0


def run_batch(encoder: EncoderBackend, batch: Sequence[Encoded]) -> BatchOutcome:
    """Run ``batch``; never raises an ``Exception``. Each failed item has an error of its own."""
    ran = BatchOutcome([])
    ran.values = _values(encoder, batch, ran, retried=False)
    return ran


def _values(
    encoder: EncoderBackend, batch: Sequence[Encoded], ran: BatchOutcome, *, retried: bool
) -> list[Value]:
    try:
        rows = encoder.run(batch)
        if len(rows) != len(batch):
            raise BackendError(
                f"{encoder.spec.model} returned {len(rows)} rows for {len(batch)} items",
                hint="see the log",
            )
        return list(rows)
    except Exception as raised:
        ran.failures += 1
        error = _told(encoder, raised, items=len(batch), again=ran.failures > 1)
    # Outside the handler: what the failed run held in its frames is free again.
    if isinstance(error, OutOfMemory):
        ran.ran_out = True
        if retried:
            return [_another(error) for _ in batch]
        return _halved(encoder, batch, ran, retried=True)
    if len(batch) == 1:
        return [error]
    return _halved(encoder, batch, ran, retried=retried)


def _halved(
    encoder: EncoderBackend, batch: Sequence[Encoded], ran: BatchOutcome, *, retried: bool
) -> list[Value]:
    middle = (len(batch) + 1) // 2
    halves = [half for half in (batch[:middle], batch[middle:]) if half]
    return [value for half in halves for value in _values(encoder, half, ran, retried=retried)]


def _told(encoder: EncoderBackend, raised: Exception, *, items: int, again: bool) -> OndolError:
    """Return ``raised`` as an error of ours, logged, and with the memory of its frames let go."""
    name = encoder.spec.model
    unknown = not isinstance(raised, OndolError | MemoryError)
    _log.log(
        logging.DEBUG if again else logging.ERROR if unknown else logging.WARNING,
        "a batch of %d failed in %s: %r",
        items,
        name,
        raised,
        exc_info=raised if unknown else None,
    )
    if isinstance(raised, OndolError):
        error = raised
    elif isinstance(raised, MemoryError):
        error = OutOfMemory(
            f"{name} found no memory for a batch of {items}", hint="lower models.token_budget"
        )
    else:
        error = BackendError(f"{name} failed: {raised}", hint="see the log")
    link: BaseException | None = raised
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
    return error


def _another(error: OutOfMemory) -> OutOfMemory:
    """Return a copy: callers write the name of their own input into the error they get."""
    return OutOfMemory(error.message, hint=error.hint, code=error.code)
