"""How an encoder's failed or senseless run is told, the same for every model library.

Running out of memory is an error of its own, because a smaller batch may well succeed; libraries
name it only in their messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ondol.backends.base import EncoderSpec
from ondol.core.errors import BackendError, ModelError, OutOfMemory
from ondol.core.types import FloatMatrix
from ondol.kernels.kernel_error import KernelError

_MEMORY = re.compile(r"allocate memory|bad_?alloc|bad allocation|out of memory", re.I)


@contextmanager
def as_model_error() -> Iterator[None]:
    """Let an error of the kernels leave as ``ModelError``, with its message and its hint."""
    try:
        yield
    except KernelError as error:
        raise ModelError(str(error), hint=error.hint) from error


def load_failure(error: Exception, *, spec: EncoderSpec) -> ModelError:
    """Return the error for an encoder that could not be loaded."""
    return ModelError(
        f"{spec.model} ({spec.form}) could not be loaded: {error or type(error).__name__}",
        hint=f"fetch it anew: ondol models pull {spec.model} --force",
    )


def run_failure(error: BaseException, *, spec: EncoderSpec, items: int) -> BackendError:
    """Return what a failed run of ``items`` stands for: ``OutOfMemory`` or ``BackendError``."""
    memory = isinstance(error, MemoryError) or _MEMORY.search(str(error)) is not None
    kind = OutOfMemory if memory else BackendError
    return kind(
        f"{spec.model} ({spec.form}) failed on a batch of {items}: {error or type(error).__name__}",
        hint="lower models.token_budget if memory is short",
    )


def finite_rows(output: Any, *, spec: EncoderSpec, items: int) -> FloatMatrix:
    """Return ``output`` as float32 ``(items, …)``; raises ``BackendError`` for NaN or infinity."""
    rows = np.asarray(output, dtype=np.float32)
    if not np.isfinite(rows).all():
        raise BackendError(
            f"{spec.model} ({spec.form}) returned values that are not finite",
            hint="use the reference form: models.form = 'onnx:fp32'",
        )
    return rows.reshape(items, -1)
